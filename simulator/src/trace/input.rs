//! A file or stream, plain or gzip by its first bytes, cut into lines.
//!
//! Takes LF and CR LF, a byte order mark, and a last line without its end. A line longer than [`LONGEST`] means that
//! the file is no table, and ends the reading, so that memory stays bounded whatever comes in.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, ErrorKind, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::Error;

/// Bytes in a line. The longest line in the public traces has under 300.
pub const LONGEST: usize = 64 << 10;
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Lines without their ends.
pub struct Lines {
    path: PathBuf,
    inner: Box<dyn BufRead>,
    gzip: bool,
    line: u64,
    buffer: Vec<u8>,
}

impl Lines {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Self::new(path, file)
    }

    /// Reads from a stream that is called `path` in errors.
    pub fn new(path: &Path, stream: impl Read + 'static) -> Result<Self, Error> {
        let mut stream = BufReader::new(stream);
        let mut head = Vec::with_capacity(2);
        let wrong = |source| Error::Read { path: path.to_owned(), source };
        stream.by_ref().take(2).read_to_end(&mut head).map_err(wrong)?;
        let gzip = head == GZIP;
        let whole = Cursor::new(head).chain(stream);
        let inner: Box<dyn BufRead> = if gzip { Box::new(BufReader::new(MultiGzDecoder::new(whole))) } else { Box::new(whole) };
        Ok(Self { path: path.to_owned(), inner, gzip, line: 0, buffer: Vec::new() })
    }

    /// Whose lines.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The line that was read last, 1-based.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The next line that is not blank; absent at the end.
    pub fn advance(&mut self) -> Result<Option<&[u8]>, Error> {
        loop {
            self.buffer.clear();
            let read = self.inner.by_ref().take(LONGEST as u64 + 1).read_until(b'\n', &mut self.buffer);
            self.line += 1;
            if read.map_err(|source| self.broken(source))? == 0 {
                return Ok(None);
            }
            if self.buffer.len() > LONGEST {
                let found = format!("over {LONGEST} bytes long");
                return Err(self.layout("line", found, "this is no text table of the chosen --format; check both"));
            }
            if !self.content().trim_ascii().is_empty() {
                break;
            }
        }
        while self.buffer.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            self.buffer.pop();
        }
        Ok(Some(self.content()))
    }

    /// The line without a byte order mark.
    fn content(&self) -> &[u8] {
        let mark: &[u8] = if self.line == 1 { b"\xef\xbb\xbf" } else { b"" };
        self.buffer.strip_prefix(mark).unwrap_or(&self.buffer)
    }

    /// All that is left as one text of at most `most` bytes.
    pub fn rest(mut self, most: u64) -> Result<(PathBuf, String), Error> {
        let mut bytes = Vec::new();
        self.line = 1;
        let read = self.inner.by_ref().take(most + 1).read_to_end(&mut bytes);
        read.map_err(|source| self.broken(source))?;
        if bytes.len() as u64 > most {
            return Err(self.layout(
                "file",
                format!("over {most} bytes long"),
                "this is no file of the chosen --format; check both",
            ));
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok((self.path, text)),
            Err(error) => {
                let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
                self.line = good.split(|byte| *byte == b'\n').count() as u64;
                Err(self.layout("text", "not UTF-8".to_owned(), "save the file as UTF-8"))
            }
        }
    }

    /// What is wrong with the file at the current line.
    pub fn layout(&self, field: &str, found: String, remedy: &str) -> Error {
        Error::Layout { path: self.path.clone(), line: self.line, field: field.to_owned(), found, remedy: remedy.to_owned() }
    }

    fn broken(&self, source: io::Error) -> Error {
        if self.gzip && matches!(source.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidInput | ErrorKind::InvalidData) {
            return self.layout("gzip data", source.to_string(), "the file is cut off or damaged; fetch it again");
        }
        Error::Read { path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<String> {
        let mut lines = Lines::new(Path::new("t"), Cursor::new(bytes.to_vec())).unwrap();
        let mut all = Vec::new();
        while let Some(line) = lines.advance().unwrap() {
            all.push(String::from_utf8_lossy(line).into_owned());
        }
        all
    }

    #[test]
    fn both_line_ends_a_mark_blank_lines_and_a_missing_last_end_are_taken() {
        assert_eq!(lines(b"\xef\xbb\xbfa,b\r\n\r\n1,2\n \n3,4"), ["a,b", "1,2", "3,4"]);
        assert_eq!(lines(b""), [""; 0]);
        assert_eq!(lines(b"\xef\xbb\xbf"), [""; 0]);
        assert_eq!(lines(b"x"), ["x"]);
    }

    #[test]
    fn trailing_tabs_belong_to_the_line() {
        assert_eq!(lines(b"a\t\t\r\n"), ["a\t\t"]);
    }

    #[test]
    fn gzip_is_known_by_its_bytes_and_a_cut_is_told() {
        use std::io::Write;
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(b"a\nb\n").unwrap();
        let packed = packed.finish().unwrap();
        assert_eq!(lines(&packed), ["a", "b"]);
        let mut cut = Lines::new(Path::new("t.gz"), Cursor::new(packed[..packed.len() - 9].to_vec())).unwrap();
        let error = loop {
            match cut.advance() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the cut went unseen"),
                Err(error) => break error.to_string(),
            }
        };
        assert!(error.contains("t.gz, line") && error.contains("gzip data") && error.contains("fetch it again"), "{error}");
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_memory() {
        let mut lines = Lines::new(Path::new("t"), io::repeat(b'x')).unwrap();
        assert!(lines.advance().unwrap_err().to_string().contains("line 1"));
    }
}
