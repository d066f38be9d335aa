//! The token by which a router or a replica is known to its world.
//!
//! It is a file that Kubernetes writes anew before the token in it expires: each session reads it again.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request, Status};

/// Bytes that are read of the file: a token of Kubernetes has some 1,500.
const MOST: u64 = 16 * 1024;
/// Between two attempts of one that is refused: the world asks Kubernetes at each.
pub const REFUSED_BACKOFF: Duration = Duration::from_secs(10);

/// See the module. Without a file nothing is sent.
#[derive(Clone, Debug, Default)]
pub struct Token(Option<PathBuf>);

impl Token {
    /// From this file.
    pub fn new(file: Option<PathBuf>) -> Self {
        Self(file)
    }

    /// A request with the token as it is now.
    pub fn on<T>(&self, message: T) -> Result<Request<T>, Status> {
        let mut request = Request::new(message);
        let Some(file) = &self.0 else { return Ok(request) };
        let wrong = |why: String| Status::unauthenticated(format!("--control-token-file `{}`: {why}", file.display()));
        let mut text = String::new();
        let read = File::open(file).and_then(|file| file.take(MOST).read_to_string(&mut text));
        read.map_err(|e| wrong(format!("cannot be read: {e}; mount a service account token there")))?;
        let bearer: Result<MetadataValue<Ascii>, _> = format!("Bearer {}", text.trim()).parse();
        let mut bearer = bearer.map_err(|_| wrong("does not hold a token; mount a service account token there".to_owned()))?;
        bearer.set_sensitive(true);
        request.metadata_mut().insert("authorization", bearer);
        Ok(request)
    }
}

/// Whether somebody must do something before a session can be: the world does not let this one in.
pub fn is_refusal(status: &Status) -> bool {
    matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(token: &Token) -> Option<String> {
        let request = token.on(()).unwrap();
        request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn each_session_sends_what_the_file_holds_by_then() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let token = Token::new(Some(file.path().to_owned()));
        std::fs::write(file.path(), "first\n").unwrap();
        assert_eq!(bearer(&token).as_deref(), Some("Bearer first"));
        std::fs::write(file.path(), "second").unwrap();
        assert_eq!(bearer(&token).as_deref(), Some("Bearer second"));
        assert_eq!(bearer(&Token::default()), None);
    }

    #[test]
    fn a_file_that_holds_no_token_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let told = |token: Token| token.on(()).unwrap_err();
        std::fs::write(file.path(), "a\nb").unwrap();
        let status = told(Token::new(Some(file.path().to_owned())));
        assert!(is_refusal(&status) && status.message().contains("does not hold a token"), "{status}");
        let status = told(Token::new(Some("/nowhere/token".into())));
        assert!(status.message().contains("--control-token-file `/nowhere/token`: cannot be read"), "{status}");
    }
}
