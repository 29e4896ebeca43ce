//! The bearer token that a client shows with every call, and when to read it again.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::{Endpoint, GrpcConfig};
use crate::{Error, ErrorKind, Result};

/// What comes before the token in the header (RFC 6750).
const SCHEME: &str = "Bearer ";

/// Largest file taken for a token. Servers commonly refuse more than 8 KiB of headers in all.
const MAX_FILE_BYTES: u64 = 16 * 1024;

/// A file with a bearer token, which may be replaced while the client runs.
///
/// White space around the token does not count. The file is read when the
/// client is made, again in the intervals given here, and whenever the service
/// has refused the token as such (UNAUTHENTICATED), whose call is then tried
/// once more. A file that cannot be read later on leaves the last token in use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenFile {
    /// The file.
    pub path: PathBuf,
    /// How long a token is used before the file is read again, with the first call after that; `None` for as long as
    /// the service accepts it.
    pub reload: Option<Duration>,
    /// Whether it may be sent where others can read it.
    pub plaintext: PlaintextToken,
}

impl TokenFile {
    /// A token that is read again every minute, and never sent in plain text.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), reload: Some(Duration::from_secs(60)), plaintext: PlaintextToken::Refused }
    }
}

/// Whether a token may be sent over TCP without TLS, where everybody on the
/// way can take it. Unix sockets do not leave the machine and are always fine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlaintextToken {
    /// No client is made for such an endpoint.
    Refused,
    /// It is sent.
    Allowed,
}

/// A token as the header's value, which knows that it is a secret.
#[derive(Clone)]
pub(super) struct Token(HeaderValue);

impl Token {
    /// The header's value. Marked as sensitive: `Debug` does not show it, and it is not kept in header compression tables.
    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }

    /// `text` without the token, should a service have repeated it.
    pub(super) fn redact(&self, text: &str) -> Option<String> {
        let token = self.0.to_str().ok()?.strip_prefix(SCHEME)?;
        text.contains(token).then(|| text.replace(token, "…"))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A token, and the reading of the file that it was in use after.
#[derive(Clone, Debug)]
pub(super) struct Credential {
    pub(super) token: Token,
    reading: u64,
}

/// The token of one client. Read by one call at a time, while the others that need it wait.
#[derive(Debug)]
pub(super) struct TokenSource {
    file: TokenFile,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    credential: Credential,
    /// Of the last reading; `None` before the first use, since no clock runs before there is a runtime.
    since: Option<Instant>,
    /// A reading that is to be done, or being done.
    due: Option<Arc<OnceCell<()>>>,
}

impl TokenSource {
    /// Reads the token for the first time, where there is to be one.
    ///
    /// # Errors
    /// `Io` when the file cannot be read, `Invalid` when there is no token in
    /// it, or the token would be sent where it must not.
    pub(super) fn new(config: &GrpcConfig) -> Result<Option<Self>> {
        let Some(file) = config.token.clone() else { return Ok(None) };
        if matches!(config.endpoint, Endpoint::Tcp { .. }) && file.plaintext == PlaintextToken::Refused {
            let reason = format!(
                "the token in {} is not sent without TLS, where everybody on the way can read it; \
                 use https:// or a Unix socket",
                file.path.display()
            );
            return Err(Error::new(ErrorKind::Invalid, "connect", reason).at(&config.endpoint));
        }
        let token = read(&file.path).map_err(|e| e.at(&config.endpoint))?;
        let credential = Credential { token, reading: 0 };
        Ok(Some(Self { file, state: Mutex::new(State { credential, since: None, due: None }) }))
    }

    /// The token to send now, read again if it is time to.
    pub(super) async fn current(&self) -> Credential {
        let due = self.lock().due(self.file.reload);
        if let Some(due) = due {
            due.get_or_init(|| self.read_again()).await;
        }
        self.lock().credential.clone()
    }

    /// The service does not accept this one: it is read again before the next call, unless that was done meanwhile.
    pub(super) fn refused(&self, credential: &Credential) {
        let mut state = self.lock();
        if state.credential.reading == credential.reading && state.due.is_none() {
            state.due = Some(Arc::default());
        }
    }

    async fn read_again(&self) {
        let path = self.file.path.clone();
        // Small, but perhaps on a network file system.
        let result = tokio::task::spawn_blocking(move || read(&path)).await;
        let mut state = self.lock();
        match result {
            Ok(Ok(token)) => state.credential.token = token,
            Ok(Err(error)) => tracing::warn!(%error, "the last token stays in use"),
            Err(error) => tracing::warn!(%error, "the last token stays in use"),
        }
        state.credential.reading += 1;
        state.since = Some(Instant::now());
        state.due = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing panics while it is held, and the state is valid at any point.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The reading to wait for, if there is one.
    fn due(&mut self, reload: Option<Duration>) -> Option<Arc<OnceCell<()>>> {
        let since = *self.since.get_or_insert_with(Instant::now);
        if self.due.is_none() && reload.is_some_and(|reload| since.elapsed() >= reload) {
            self.due = Some(Arc::default());
        }
        self.due.clone()
    }
}

/// The token in a file. Errors name the file and nothing that is in it.
fn read(path: &Path) -> Result<Token> {
    let unreadable = |e: std::io::Error| {
        Error::new(ErrorKind::Io, "connect", format!("the token file {} cannot be read", path.display())).caused_by(e)
    };
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text).map_err(unreadable)?;
    parse(&text).map_err(|what| {
        let reason = format!("the token file {} {what}", path.display());
        Error::new(ErrorKind::Invalid, "connect", reason)
    })
}

fn parse(text: &[u8]) -> Result<Token, &'static str> {
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err("is larger than 16 KiB");
    }
    let token = text.trim_ascii();
    if token.is_empty() {
        return Err("is empty");
    }
    if !token.iter().all(u8::is_ascii_graphic) {
        return Err("has something else in it than one token, which is one word of ASCII characters");
    }
    let mut value = HeaderValue::from_bytes(&[SCHEME.as_bytes(), token].concat()).map_err(|_| "has no token in it")?;
    value.set_sensitive(true);
    Ok(Token(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source(path: &Path, reload: Option<Duration>) -> TokenSource {
        let mut config = GrpcConfig::new("unix:casd.sock".parse().unwrap());
        config.token = Some(TokenFile { reload, ..TokenFile::new(path) });
        TokenSource::new(&config).unwrap().unwrap()
    }

    async fn current(source: &TokenSource) -> HeaderValue {
        source.current().await.token.header()
    }

    #[test]
    fn one_word_is_a_token() {
        assert_eq!(parse(b" \n abc.DEF-123=\r\n").unwrap().header(), "Bearer abc.DEF-123=");
        for text in [&b""[..], b" \n", b"a b", b"a\nb", b"\xff", b"a\0", &vec![b'a'; 16 * 1024 + 1]] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        let token = parse(b"secret").unwrap();
        assert!(!format!("{token:?} {:?}", token.header()).contains("secret"));
        assert_eq!(token.redact("no such token: secret!"), Some("no such token: …!".to_owned()));
        assert_eq!(token.redact("no such token"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_read_again_after_the_interval() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "one").unwrap();
        let source = source(file.path(), Some(Duration::from_secs(10)));
        assert_eq!(current(&source).await, "Bearer one");
        std::fs::write(file.path(), "two").unwrap();
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(current(&source).await, "Bearer one");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(current(&source).await, "Bearer two");
        std::fs::write(file.path(), "").unwrap();
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(current(&source).await, "Bearer two", "the last good one");
    }

    #[tokio::test]
    async fn a_refusal_counts_for_the_token_that_was_sent() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "one").unwrap();
        let source = source(file.path(), None);
        let first = source.current().await;
        std::fs::write(file.path(), "two").unwrap();
        assert_eq!(current(&source).await, "Bearer one", "nothing says that it has changed");
        source.refused(&first);
        assert_eq!(current(&source).await, "Bearer two");
        std::fs::write(file.path(), "three").unwrap();
        source.refused(&first);
        assert_eq!(current(&source).await, "Bearer two", "an answer to the first one, which came late");
    }

    #[tokio::test]
    async fn whoever_stops_waiting_leaves_the_reading_to_the_next() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "one").unwrap();
        let source = source(file.path(), None);
        source.refused(&source.current().await);
        std::fs::write(file.path(), "two").unwrap();
        let abandoned = futures_util::FutureExt::now_or_never(source.current());
        assert!(abandoned.is_none(), "reading takes more than one poll");
        assert_eq!(current(&source).await, "Bearer two");
    }

    proptest! {
        #[test]
        fn no_file_panics(text: Vec<u8>) {
            if let Ok(token) = parse(&text) {
                prop_assert!(token.header().is_sensitive());
            }
        }
    }
}
