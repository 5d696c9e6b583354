//! What a test wants otherwise than usual.

/// Settings of the server's own, by the names it has for them.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings(Vec<(String, String)>);

impl Settings {
    pub(super) fn new(settings: &[(&str, &str)]) -> Self {
        Self(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// As arguments `--name value`; an empty value is none, unless the server wants one.
    pub(super) fn arguments(&self, empty: bool) -> Vec<String> {
        let mut arguments = Vec::new();
        for (name, value) in self.iter() {
            arguments.push(format!("--{name}"));
            if empty || !value.is_empty() {
                arguments.push(value.to_owned());
            }
        }
        arguments
    }
}

/// Words as arguments.
pub(super) fn words(words: &str) -> Vec<String> {
    words.split_whitespace().map(str::to_owned).collect()
}
