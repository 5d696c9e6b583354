use std::fmt;

/// What a behaviour found wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The guarantee that is broken: "G3".
    pub guarantee: &'static str,
    /// How things stood.
    pub given: String,
    /// What was done.
    pub when: String,
    /// What should have come of it.
    pub expected: String,
    /// What came of it.
    pub observed: String,
    /// The mistake that usually leads to this.
    pub usual_cause: &'static str,
}

/// What a behaviour answers.
pub type Check = Result<(), Box<Verdict>>;

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} does not hold", self.guarantee)?;
        writeln!(f, "  given        {}", self.given)?;
        writeln!(f, "  when         {}", self.when)?;
        writeln!(f, "  expected     {}", self.expected)?;
        writeln!(f, "  observed     {}", self.observed)?;
        write!(f, "  usual cause  {}", self.usual_cause)
    }
}

/// The scene of a check: what a failed one will say besides what was observed.
#[derive(Debug, Clone, Copy)]
pub struct Scene {
    pub(crate) guarantee: &'static str,
    pub(crate) given: &'static str,
    pub(crate) when: &'static str,
    pub(crate) usual_cause: &'static str,
}

impl Scene {
    /// The observed value is the expected one.
    pub(crate) fn same<E: PartialEq<O> + fmt::Debug, O: fmt::Debug>(
        &self,
        what: &str,
        expected: E,
        observed: O,
    ) -> Check {
        if expected == observed {
            return Ok(());
        }
        Err(self.verdict(format!("{what}: {expected:?}"), format!("{observed:?}")))
    }

    /// Something holds.
    pub(crate) fn holds(&self, what: &str, holds: bool, observed: impl fmt::Debug) -> Check {
        if holds { Ok(()) } else { Err(self.verdict(what.to_owned(), format!("{observed:?}"))) }
    }

    /// Something is there.
    pub(crate) fn some<T>(&self, what: &str, option: Option<T>) -> Result<T, Box<Verdict>> {
        option.ok_or_else(|| self.verdict(what.to_owned(), "nothing".to_owned()))
    }

    pub(crate) fn verdict(&self, expected: String, observed: String) -> Box<Verdict> {
        Box::new(Verdict {
            guarantee: self.guarantee,
            given: self.given.to_owned(),
            when: self.when.to_owned(),
            expected,
            observed,
            usual_cause: self.usual_cause,
        })
    }
}

/// Sets the scene of a behaviour in one line each.
macro_rules! scene {
    ($guarantee:ident, given $given:literal, when $when:literal, usually $cause:literal) => {
        $crate::verdict::Scene {
            guarantee: stringify!($guarantee),
            given: $given,
            when: $when,
            usual_cause: $cause,
        }
    };
}
pub(crate) use scene;

impl From<actornot_core::Error> for Box<Verdict> {
    /// A call that should have worked did not.
    fn from(error: actornot_core::Error) -> Self {
        Box::new(Verdict {
            guarantee: "",
            given: "the scene this behaviour sets".to_owned(),
            when: "one of its calls is made".to_owned(),
            expected: "the call works".to_owned(),
            observed: format!("{error:?}"),
            usual_cause: "the call itself; see the error",
        })
    }
}
