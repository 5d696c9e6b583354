//! License expressions, as crates write them.

/// Whether a license expression can be met with the licenses allowed.
pub(crate) fn allowed(expression: &str, allow: &[String]) -> bool {
    // Old crates write "MIT/Apache-2.0" for OR.
    let text = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut rest = &words[..];
    any(&mut rest, allow) == Some(true) && rest.is_empty()
}

fn any(rest: &mut &[&str], allow: &[String]) -> Option<bool> {
    let mut met = all(rest, allow)?;
    while let [word, tail @ ..] = rest
        && *word == "OR"
    {
        *rest = tail;
        met |= all(rest, allow)?;
    }
    Some(met)
}

fn all(rest: &mut &[&str], allow: &[String]) -> Option<bool> {
    let mut met = one(rest, allow)?;
    while let [word, tail @ ..] = rest
        && *word == "AND"
    {
        *rest = tail;
        met &= one(rest, allow)?;
    }
    Some(met)
}

/// `None` for what is not understood, which is not allowed.
fn one(rest: &mut &[&str], allow: &[String]) -> Option<bool> {
    match *rest {
        ["(", tail @ ..] => {
            *rest = tail;
            let met = any(rest, allow)?;
            *rest = rest.strip_prefix(&[")"])?;
            Some(met)
        }
        // A license with an exception is another license.
        [name, "WITH", exception, tail @ ..] => {
            *rest = tail;
            Some(allow.contains(&format!("{name} WITH {exception}")))
        }
        [name, tail @ ..] => {
            *rest = tail;
            Some(allow.iter().any(|allowed| allowed == name))
        }
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_mit(expression: &str) -> bool {
        allowed(expression, &["MIT".to_owned(), "Unicode-3.0".to_owned()])
    }

    #[test]
    fn one_side_of_or_is_enough_and_both_of_and_are_needed() {
        assert!(with_mit("MIT OR Apache-2.0"));
        assert!(with_mit("Unlicense/MIT"));
        assert!(with_mit("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(!with_mit("MIT AND GPL-3.0"));
        assert!(!with_mit("Apache-2.0"));
        assert!(with_mit("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT"));
    }

    #[test]
    fn what_is_not_understood_is_not_allowed() {
        for expression in ["", "OR", "(MIT", "MIT MIT", "MIT OR"] {
            assert!(!with_mit(expression), "{expression:?}");
        }
    }
}
