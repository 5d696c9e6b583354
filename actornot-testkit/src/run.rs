//! The list of behaviours as values, and how one is run.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::lab::Lab;
use crate::verdict::{Check, Verdict};
use crate::{Backend, behaviours};

type Run = for<'a> fn(&'a Lab) -> Pin<Box<dyn Future<Output = Check> + Send + 'a>>;

/// One thing that every adapter must do.
pub struct Behaviour {
    /// `theme::sentence`.
    pub name: &'static str,
    /// The guarantee it belongs to.
    pub guarantee: &'static str,
    run: Run,
}

impl std::fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.name, self.guarantee)
    }
}

/// A call that does not return is a failure too: nothing may hang.
const PATIENCE: Duration = Duration::from_secs(120);

impl Behaviour {
    /// Whether it is about the mailbox loop over the adapter, not about the adapter's verbs alone.
    pub fn is_of_the_loop(&self) -> bool {
        ["mailbox::", "lost::", "fairness::", "failing::", "dying::", "modes::"]
            .iter()
            .any(|theme| self.name.starts_with(theme))
    }

    /// Runs it on a fresh backend.
    ///
    /// # Errors
    /// What does not hold.
    pub async fn check(&self, backend: impl Backend) -> Check {
        let lab = Lab::new(backend);
        match tokio::time::timeout(PATIENCE, (self.run)(&lab)).await {
            Ok(Err(verdict)) => Err(Box::new(Verdict { guarantee: self.guarantee, ..*verdict })),
            Ok(Ok(())) => Ok(()),
            Err(_) => Err(Box::new(Verdict {
                guarantee: self.guarantee,
                given: self.name.to_owned(),
                when: "it is run".to_owned(),
                expected: format!("an end within {PATIENCE:?}"),
                observed: "it still runs".to_owned(),
                usual_cause: "a lock or a connection that a dropped or failed call never gave back",
            })),
        }
    }
}

macro_rules! registry {
    ($($theme:ident { $($name:ident: $guarantee:ident,)* })*) => {
        /// Every behaviour, in the order of the list.
        pub static ALL: &[Behaviour] = &[
            $($(Behaviour {
                name: concat!(stringify!($theme), "::", stringify!($name)),
                guarantee: stringify!($guarantee),
                run: |lab| Box::pin(behaviours::$theme::$name(lab)),
            },)*)*
        ];
    };
}
crate::for_each_behaviour!(registry);

/// Runs one behaviour by name and panics with its verdict: what the generated tests call.
pub async fn assert_holds(name: &str, backend: impl Backend) {
    let Some(behaviour) = ALL.iter().find(|behaviour| behaviour.name == name) else {
        panic!("there is no behaviour {name}");
    };
    if let Err(verdict) = behaviour.check(backend).await {
        panic!("{name}: {verdict}");
    }
}
