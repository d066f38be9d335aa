//! `top`: devices, models and jobs as they change. On a terminal a screen that follows them; with `--once`,
//! or where standard output is no terminal, the same as text, once.

mod lane;
mod rows;
mod screen;

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyModifiers};
use tidegate_api::view::{State, Timeline};

use super::http::{Client, Error, Server};
use super::out;
use screen::Screen;

/// How often `up` is asked.
const PERIOD: Duration = Duration::from_millis(500);

/// How long a key may lie unseen.
const KEY_PERIOD: Duration = Duration::from_millis(100);

/// Arguments of `top`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Prints text once.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    server: Server,
}

pub async fn run(Args { once, server }: Args) -> Result<(), Error> {
    let client = Client::new(&server)?;
    if once || !io::stdout().is_terminal() {
        let state: State = client.get("/api/v1/state").await?;
        return out::print(&rows::text(&state, client.url()));
    }
    let mut screen = Screen::new(client.url());
    // The first look decides whether there is anything to follow; later failures are shown and outlived.
    screen.show(client.get("/api/v1/state").await?, Timeline::default());
    let mut terminal = ratatui::try_init().map_err(Error::Output)?;
    let done = follow(&client, &mut terminal, &mut screen).await;
    ratatui::restore();
    done
}

async fn follow(client: &Client, terminal: &mut DefaultTerminal, screen: &mut Screen) -> Result<(), Error> {
    loop {
        match look(client, screen.since_ms()).await {
            Ok((state, timeline)) => screen.show(state, timeline),
            Err(e) => screen.fail(&e),
        }
        terminal.draw(|frame| screen.draw(frame)).map_err(Error::Output)?;
        let next = Instant::now() + PERIOD;
        while Instant::now() < next {
            if quit_pressed().await? {
                return Ok(());
            }
        }
    }
}

async fn look(client: &Client, since_ms: u64) -> Result<(State, Timeline), Error> {
    Ok((client.get("/api/v1/state").await?, client.get(&format!("/api/v1/timeline?since={since_ms}")).await?))
}

/// Waits a moment for a key. In raw mode Ctrl-C is a key like any other.
async fn quit_pressed() -> Result<bool, Error> {
    let read = || if event::poll(KEY_PERIOD)? { event::read().map(Some) } else { Ok(None) };
    let event = tokio::task::spawn_blocking(read).await.map_err(io::Error::other).and_then(|event| event);
    Ok(matches!(event.map_err(Error::Output)?, Some(Event::Key(key)) if is_quit(key)))
}

fn is_quit(key: KeyEvent) -> bool {
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => true,
        KeyCode::Char('c') => key.modifiers.contains(KeyModifiers::CONTROL),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_and_control_c_quit_and_c_does_not() {
        let key = |c, modifiers| is_quit(KeyEvent::new(KeyCode::Char(c), modifiers));
        assert!(key('q', KeyModifiers::NONE));
        assert!(key('c', KeyModifiers::CONTROL));
        assert!(!key('c', KeyModifiers::NONE));
    }
}
