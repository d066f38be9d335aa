//! A real PostgreSQL on the network of a cluster. It refuses to run as root, so it runs as nobody, in a folder of nobody's.

use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::kubelet::parts::Parts;
use crate::outside::installed;

/// The database that every server has.
pub const PLACE: &str = "postgres://tidegate@127.0.0.1:5432/postgres";
const PORT: u16 = 5432;
const NOBODY: u32 = 65_534;

/// What the server has written.
pub type Folder = TempDir;

/// Makes a database and starts the server.
pub async fn start(parts: &mut Parts) -> Result<Folder> {
    let programs = installed("TIDEGATE_TEST_POSTGRES")?;
    let folder = tempfile::Builder::new().prefix("tidegate-postgres-").tempdir()?;
    chown(folder.path(), Some(NOBODY), Some(NOBODY)).context("need root, which gives PostgreSQL a folder of nobody's")?;
    let data = folder.path().join("data");
    let mut made = Command::new("setpriv");
    as_nobody(&mut made, &programs.join("initdb"));
    made.arg("--pgdata").arg(&data).args(["--username", "tidegate", "--auth", "trust", "--no-sync"]);
    let made = made.current_dir(folder.path()).output().context("run setpriv, of util-linux")?;
    ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    let mut server = parts.command(Path::new("setpriv"));
    as_nobody(&mut server, &programs.join("postgres"));
    server.arg("-D").arg(&data).arg("-k").arg(folder.path()).args(["-h", "127.0.0.1", "-c", "fsync=off"]);
    server.current_dir(folder.path());
    // The thread is on that network.
    let answers = |_: &Parts| Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).is_ok());
    parts.start("postgres", server, answers).await?;
    Ok(folder)
}

fn as_nobody(command: &mut Command, program: &Path) {
    command
        .args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")])
        .args(["--clear-groups".as_ref(), program.as_os_str()]);
}
