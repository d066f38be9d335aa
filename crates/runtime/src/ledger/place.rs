//! Where a ledger is, as a flag says it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// `sqlite:FOLDER` or `postgres://USER@HOST/DATABASE`. What is shown of it holds no password.
#[derive(Clone)]
pub enum Place {
    /// A folder on this machine, for one process at a time.
    Folder(PathBuf),
    /// A database that several processes reach.
    Postgres(Box<PgConnectOptions>),
}

/// Forms that are understood.
const FORMS: &str = "give sqlite:FOLDER or postgres://USER@HOST/DATABASE";

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(folder) = text.strip_prefix("sqlite:") {
            return if folder.is_empty() { Err(format!("names no folder; {FORMS}")) } else { Ok(Self::Folder(folder.into())) };
        }
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(format!("is no ledger; {FORMS}"));
        }
        let options: PgConnectOptions = text.parse().map_err(|e| format!("cannot be read ({e}); {FORMS}"))?;
        match options.get_ssl_mode() {
            PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull => {
                Err("asks for TLS, which this program does not speak to PostgreSQL: leave sslmode out".to_owned())
            }
            _ => Ok(Self::Postgres(Box::new(options.application_name("tidegate")))),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "sqlite:{}", folder.display()),
            Self::Postgres(options) => {
                let database = options.get_database().unwrap_or_else(|| options.get_username());
                write!(f, "postgres://{}:{}/{database}", options.get_host(), options.get_port())
            }
        }
    }
}

/// As it is displayed: the options would show a password.
impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_shown_without_its_password() {
        let place: Place = "postgres://tidegate:secret@db.example:6432/history".parse().unwrap();
        assert_eq!(place.to_string(), "postgres://db.example:6432/history");
        assert_eq!(format!("{place:?}"), place.to_string());
        assert_eq!("sqlite:/var/lib/tidegate".parse::<Place>().unwrap().to_string(), "sqlite:/var/lib/tidegate");
    }

    #[test]
    fn what_is_no_place_is_told_with_the_remedy() {
        for wrong in ["", "sqlite:", "mysql://h/d", "/var/lib/tidegate", "postgres://h:notaport/d"] {
            assert!(wrong.parse::<Place>().unwrap_err().contains("give sqlite:FOLDER or postgres://"), "{wrong}");
        }
        assert!("postgres://h/d?sslmode=require".parse::<Place>().unwrap_err().contains("leave sslmode out"));
    }
}
