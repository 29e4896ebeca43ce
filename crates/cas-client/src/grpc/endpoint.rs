//! Where a service listens.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Longest path of a Unix socket on Linux (`sockaddr_un.sun_path` has 108 bytes, one for the terminator).
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// What may be written instead of a URL that was refused.
const FORMS: &str = "use unix:PATH, https://HOST[:PORT] or grpcs://HOST[:PORT] with TLS, \
                     http://HOST[:PORT] or grpc://HOST[:PORT] without";

/// Port of `http://` and `grpc://` without one.
const PLAINTEXT_PORT: u16 = 80;

/// Port of `https://` and `grpcs://` without one.
const TLS_PORT: u16 = 443;

/// The address of a gRPC service. Parses from, and prints as, a URL.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Endpoint {
    /// A Unix domain socket: `unix:PATH`.
    Unix {
        /// The socket's path; a relative one is relative to the current directory at connection time.
        path: PathBuf,
    },
    /// HTTP/2 over TCP without TLS: `http://HOST[:PORT]` or `grpc://HOST[:PORT]`.
    Tcp {
        /// Host name or address; an IPv6 address without its brackets.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// HTTP/2 over TLS: `https://HOST[:PORT]` or `grpcs://HOST[:PORT]`.
    Tls {
        /// Host name or address, which the service's certificate must be for; an IPv6 address without its brackets.
        host: String,
        /// TCP port.
        port: u16,
    },
}

impl Endpoint {
    /// A Unix domain socket.
    ///
    /// # Errors
    /// [`EndpointError::Path`] when no socket can have that path.
    pub fn unix(path: impl AsRef<Path>) -> Result<Self, EndpointError> {
        let path = path.as_ref();
        let bytes = path.as_os_str().as_encoded_bytes();
        let refuse = |reason| Err(EndpointError::Path { url: shown(&format!("unix:{}", path.display())), reason });
        if bytes.is_empty() {
            refuse("the path is empty")
        } else if bytes.contains(&0) {
            refuse("the path contains a NUL character")
        } else if bytes.len() > MAX_SOCKET_PATH_BYTES {
            refuse(
                "the path is longer than 107 bytes, the limit for sockets; use a relative path or a shorter directory",
            )
        } else {
            Ok(Self::Unix { path: path.to_owned() })
        }
    }

    /// `HOST:PORT` as HTTP writes it; what a Unix socket is called in HTTP is `localhost`.
    pub(super) fn authority(&self) -> String {
        match self {
            Self::Unix { .. } => "localhost".to_owned(),
            Self::Tcp { host, port } | Self::Tls { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port } | Self::Tls { host, port } => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { path } => write!(f, "unix:{}", path.display()),
            Self::Tcp { .. } => write!(f, "http://{}", self.authority()),
            Self::Tls { .. } => write!(f, "https://{}", self.authority()),
        }
    }
}

/// Why something is not the URL of a service. Every message names the URL and the forms that exist.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// No scheme, or one that is not known.
    #[error("{url:?} is not an endpoint: {FORMS}")]
    Scheme {
        /// What was given.
        url: String,
    },
    /// The part after `unix:` cannot be a socket's path.
    #[error("{url:?}: {reason}; write unix:PATH or unix:///ABSOLUTE/PATH")]
    Path {
        /// What was given.
        url: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The part after the scheme of a TCP service is not `HOST[:PORT]`.
    #[error("{url:?}: {reason}; {FORMS}")]
    Host {
        /// What was given.
        url: String,
        /// What is wrong.
        reason: &'static str,
    },
}

/// The start of `url`, without a user name and password that it may hold.
fn shown(url: &str) -> String {
    let clip = |text: &str| text.chars().take(200).collect::<String>();
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => clip(&format!("{}…{}", &url[..scheme + 3], &url[at..])),
        _ => clip(url),
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(url: &str) -> Result<Self, EndpointError> {
        let Some((scheme, rest)) = url.split_once(':') else {
            return Err(EndpointError::Scheme { url: shown(url) });
        };
        match scheme.to_ascii_lowercase().as_str() {
            "unix" => match rest.strip_prefix("//") {
                Some(path) if path.starts_with('/') => Self::unix(path),
                Some(_) => Err(EndpointError::Path {
                    url: shown(url),
                    reason: "after unix:// comes an absolute path, so three slashes in all",
                }),
                None => Self::unix(rest),
            },
            "http" | "grpc" => {
                let (host, port) = authority(rest).map_err(|reason| EndpointError::Host { url: shown(url), reason })?;
                Ok(Self::Tcp { host: host.to_owned(), port: port.unwrap_or(PLAINTEXT_PORT) })
            }
            "https" | "grpcs" => {
                let (host, port) = authority(rest).map_err(|reason| EndpointError::Host { url: shown(url), reason })?;
                Ok(Self::Tls { host: host.to_owned(), port: port.unwrap_or(TLS_PORT) })
            }
            _ => Err(EndpointError::Scheme { url: shown(url) }),
        }
    }
}

/// Splits `//HOST[:PORT][/]`.
fn authority(text: &str) -> Result<(&str, Option<u16>), &'static str> {
    let text = text.strip_prefix("//").ok_or("two slashes are missing")?;
    let text = text.strip_suffix('/').unwrap_or(text);
    if text.contains('@') {
        return Err("a user name in the URL is not supported");
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or("a closing bracket is missing")?;
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err("between brackets comes an IPv6 address");
            }
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err("after the closing bracket comes :PORT or nothing"),
            }
        }
        None => {
            let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
            let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            if host.is_empty() {
                return Err("the host is missing");
            }
            if !host.chars().all(valid) {
                return Err("a host name has letters, digits, dots and hyphens only, and no path follows it");
            }
            (host, port)
        }
    };
    let port = match port {
        None => None,
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => {
            Some(port.parse().ok().filter(|port| *port != 0).ok_or("the port is not between 1 and 65535")?)
        }
        Some(_) => return Err("the port is not a number"),
    };
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(url: &str, expected: &str) {
        let endpoint: Endpoint = url.parse().unwrap();
        assert_eq!(endpoint.to_string(), expected);
        assert_eq!(expected.parse(), Ok(endpoint), "the canonical form parses to the same");
    }

    #[test]
    fn every_form_parses() {
        check("unix:/run/casd.sock", "unix:/run/casd.sock");
        check("unix:///run/casd.sock", "unix:/run/casd.sock");
        check("unix:casd.sock", "unix:casd.sock");
        check("http://localhost:8980", "http://localhost:8980");
        check("grpc://localhost:8980/", "http://localhost:8980");
        check("GRPC://cache.example", "http://cache.example:80");
        check("http://[::1]:8980", "http://[::1]:8980");
        check("http://127.0.0.1", "http://127.0.0.1:80");
        check("https://cache.example", "https://cache.example:443");
        check("grpcs://cache.example:8980/", "https://cache.example:8980");
        check("HTTPS://[::1]", "https://[::1]:443");
    }

    #[test]
    fn refusals_name_the_url_and_the_forms() {
        for url in
            ["", "localhost:8980", "ftp://x", "http:x", "https:x", "grpcs://", "http://", "http://x:0", "http://x:y"]
        {
            let message = url.parse::<Endpoint>().unwrap_err().to_string();
            assert!(message.contains("grpc://HOST[:PORT]") && message.contains(&format!("{url:?}")), "{message}");
        }
        for url in ["unix:", "unix://x", &format!("unix:/{}", "x".repeat(107)), "unix:a\0b"] {
            let message = url.parse::<Endpoint>().unwrap_err().to_string();
            assert!(message.contains("unix:PATH"), "{message}");
        }
        for url in ["http://x/path", "http://x:65536", "http://[::1", "http://[x]:1", "http://[::1]x", "http://a b"] {
            assert!(matches!(url.parse::<Endpoint>(), Err(EndpointError::Host { .. })), "{url}");
        }
    }

    #[test]
    fn a_password_is_not_repeated() {
        let message = "http://me:secret@host".parse::<Endpoint>().unwrap_err().to_string();
        assert!(!message.contains("secret"), "{message}");
    }

    proptest! {
        #[test]
        fn no_text_panics(prefix in "(unix:|http://|grpc://|https://|grpcs://|)", rest in "\\PC*") {
            if let Ok(endpoint) = format!("{prefix}{rest}").parse::<Endpoint>() {
                prop_assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
            }
        }
    }
}
