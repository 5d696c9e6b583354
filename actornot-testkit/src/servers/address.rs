//! The parts of a URL that say where a server is.

/// Where a URL leads to. No more of it is understood than tests need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) path: String,
}

impl Address {
    /// `None` if it is no URL, or leads to servers that must be looked up elsewhere first.
    pub(super) fn of(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (default, user) = match scheme {
            "postgres" | "postgresql" => (5432, "postgres"),
            "mongodb" => (27017, ""),
            "redis" | "rediss" => (6379, ""),
            _ => return None,
        };
        let rest = rest.split('?').next()?;
        let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = place.rsplit_once('@').unwrap_or((user, place));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let first = hosts.split(',').next()?;
        // A colon inside brackets belongs to the address.
        let (host, port) = match first.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
            _ => (first, default),
        };
        let host = host.trim_matches(['[', ']']);
        let [host, user, password, path] = [host, user, password, path].map(str::to_owned);
        Some(Self { host, port, user, password, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let address = Address::of("postgres://me:a@b@[::1]:99/shop?x=y").unwrap();
        assert_eq!((address.host.as_str(), address.port), ("::1", 99));
        assert_eq!((address.user.as_str(), address.password.as_str()), ("me", "a@b"));
        assert_eq!(address.path, "shop");
        let address = Address::of("mongodb://one:1,two:2/?replicaSet=rs").unwrap();
        assert_eq!((address.host.as_str(), address.port), ("one", 1));
        let address = Address::of("redis://here").unwrap();
        assert_eq!((address.host.as_str(), address.port), ("here", 6379));
        assert_eq!(Address::of("mongodb+srv://somewhere/"), None);
    }
}
