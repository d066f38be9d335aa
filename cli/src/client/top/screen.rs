//! The live screen: each device as a lane coloured by its holder, above models and jobs.

use std::collections::BTreeMap;

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Cell, Paragraph, Row, Table};
use tidegate_api::view::{Device, Model, State, Timeline};

use super::lane;
use super::rows::{self, Columns};
use crate::client::Error;
use crate::client::table::Lean;

/// How far back a lane reaches.
const LANE_MS: u64 = 120_000;

/// Colours of holders, in the order in which they are first seen: models cool, jobs warm.
const COOL: [Color; 5] = [Color::Cyan, Color::Blue, Color::Green, Color::LightCyan, Color::LightBlue];
const WARM: [Color; 5] = [Color::Yellow, Color::Magenta, Color::Red, Color::LightYellow, Color::LightMagenta];

const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);

/// What is on the screen.
#[derive(Debug)]
pub struct Screen {
    url: String,
    state: State,
    timeline: Timeline,
    failure: Option<String>,
    colours: BTreeMap<String, Color>,
}

impl Screen {
    /// Empty, for the server at `url`.
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            state: State::default(),
            timeline: Timeline::default(),
            failure: None,
            colours: BTreeMap::new(),
        }
    }

    /// From when on the timeline is shown.
    pub fn since_ms(&self) -> u64 {
        self.state.now_ms.saturating_sub(LANE_MS)
    }

    /// The world as it is now.
    pub fn show(&mut self, state: State, timeline: Timeline) {
        for (kind, names, palette) in [
            ("model", state.models.iter().map(|m| &m.name).collect::<Vec<_>>(), COOL),
            ("job", state.jobs.iter().map(|j| &j.name).collect(), WARM),
        ] {
            for name in names {
                let taken = self.colours.keys().filter(|k| k.starts_with(kind)).count();
                let next = palette.iter().cycle().nth(taken).copied().unwrap_or_default();
                self.colours.entry(format!("{kind}/{name}")).or_insert(next);
            }
        }
        self.state = state;
        self.timeline = timeline;
        self.failure = None;
    }

    /// The world could not be seen; what was seen last stays.
    pub fn fail(&mut self, error: &Error) {
        self.failure = Some(format!("control plane is down, inference goes on ({error})"));
    }

    /// Draws it all.
    pub fn draw(&self, frame: &mut Frame<'_>) {
        let height = |rows: usize| Constraint::Length(u16::try_from(rows + 2).unwrap_or(u16::MAX));
        let State { devices, models, jobs, .. } = &self.state;
        let areas = Layout::vertical([
            Constraint::Length(2),
            height(devices.len()),
            height(models.len()),
            Constraint::Min(3),
            Constraint::Length(1),
        ])
        .areas::<5>(frame.area());
        let [heading, device_area, model_area, job_area, footer] = areas;
        frame.render_widget(Paragraph::new(self.heading()), heading);
        frame.render_widget(self.devices(devices, device_area), device_area);
        frame.render_widget(table(rows::MODELS, models.iter().map(|m| self.model(m)).collect()), model_area);
        let jobs = jobs.iter().map(|j| Row::new(self.named("job", &j.name, rows::job(j), rows::JOBS)));
        frame.render_widget(table(rows::JOBS, jobs.collect()), job_area);
        frame.render_widget(Paragraph::new(Line::styled("full: own   shaded: lent   q quits", DIM)), footer);
    }

    fn heading(&self) -> Text<'_> {
        match &self.failure {
            Some(failure) => Line::styled(failure.as_str(), Style::new().fg(Color::Red)).into(),
            None => Line::styled(rows::heading(&self.state, &self.url), BOLD).into(),
        }
    }

    fn devices<'a>(&'a self, devices: &'a [Device], area: Rect) -> Table<'a> {
        let width = (area.width / 2).max(10);
        let rows = devices.iter().map(|device| {
            let held = Line::styled(rows::holders(device), self.style(device));
            let health = Style::new().fg(if device.health == "ok" { Color::Green } else { Color::Red });
            let health = Line::styled(device.health.as_str(), health);
            Row::new([Line::raw(short(&device.id)), Line::raw(device.class.as_str()), health, self.lane(device, width), held])
        });
        let widths =
            [Constraint::Max(12), Constraint::Max(16), Constraint::Length(8), Constraint::Length(width), Constraint::Fill(1)];
        let minutes = format!("LAST {} MINUTES", LANE_MS / 60_000);
        Table::new(rows, widths)
            .header(Row::new(["GPU".into(), "CLASS".into(), "HEALTH".into(), minutes, "HELD BY".into()]).style(DIM))
    }

    fn lane(&self, device: &Device, width: u16) -> Line<'_> {
        let now = self.state.now_ms;
        let cells = lane::cells(&self.timeline.spans, &device.id, now.saturating_sub(LANE_MS), now, width);
        let cells = cells.into_iter().map(|cell| match cell {
            None => Span::styled("·", DIM),
            Some(cell) => Span::styled(if cell.lent { "▒" } else { "█" }, self.colour(cell.kind, cell.name)),
        });
        cells.collect::<Vec<_>>().into()
    }

    fn style(&self, device: &Device) -> Style {
        device.holders.first().map_or(DIM, |holder| self.colour(&holder.kind, &holder.name))
    }

    fn colour(&self, kind: &str, name: &str) -> Style {
        Style::new().fg(self.colours.get(&format!("{kind}/{name}")).copied().unwrap_or_default())
    }

    fn model(&self, model: &Model) -> Row<'static> {
        #[expect(clippy::cast_precision_loss, reason = "an SLO is far below 2^52 ms")]
        let late = model.p99_ms > model.slo_ms as f64;
        let row = Row::new(self.named("model", &model.name, rows::model(model), rows::MODELS));
        if late { row.style(Style::new().fg(Color::Red)) } else { row }
    }

    /// Cells, the first of them in the colour of its holder.
    fn named(&self, kind: &str, name: &str, cells: Vec<String>, columns: Columns) -> Vec<Cell<'static>> {
        let colour = self.colour(kind, name);
        let cells = cells.into_iter().zip(columns).enumerate();
        cells
            .map(|(i, (text, (_, lean)))| Cell::new(lean_text(text, *lean)).style(if i == 0 { colour } else { Style::new() }))
            .collect()
    }
}

/// Of a driver's UUID (`GPU-`, then 36 digits and dashes) the first part, which tells devices apart.
fn short(id: &str) -> &str {
    let uuid = id.starts_with("GPU-") && id.len() == 40;
    id.get(..12).filter(|_| uuid).unwrap_or(id)
}

fn lean_text(text: String, lean: Lean) -> Text<'static> {
    Text::from(text).alignment(if lean == Lean::Right { Alignment::Right } else { Alignment::Left })
}

/// Figures take what their heading needs, words share the rest, and the last column, a sentence, most of it.
fn table(columns: Columns, rows: Vec<Row<'static>>) -> Table<'static> {
    let last = columns.len() - 1;
    let widths = columns.iter().enumerate().map(|(i, (heading, lean))| match lean {
        _ if i == last => Constraint::Fill(4),
        Lean::Right => Constraint::Length(u16::try_from(heading.len().max(9)).unwrap_or(9)),
        Lean::Left => Constraint::Fill(1),
    });
    let headings = columns.iter().map(|(heading, lean)| Cell::new(lean_text((*heading).to_owned(), *lean)));
    let header = Row::new(headings.collect::<Vec<_>>()).style(DIM);
    Table::new(rows, widths.collect::<Vec<_>>()).column_spacing(2).header(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use tidegate_api::view;

    fn screen() -> Screen {
        let holder = view::Holder { kind: "job".into(), name: "night".into(), phase: "running".into(), lent: true };
        let span = view::Span {
            device: "gpu0".into(),
            kind: "job".into(),
            name: "night".into(),
            lent: true,
            from_ms: 140_000,
            to_ms: None,
        };
        let state = State {
            now_ms: 200_000,
            devices: vec![Device { id: "gpu0".into(), health: "ok".into(), holders: vec![holder], ..Device::default() }],
            models: vec![Model { name: "digits".into(), slo_ms: 250, p99_ms: 300.0, ..Model::default() }],
            jobs: vec![view::Job { name: "night".into(), reason: "runs".into(), ..view::Job::default() }],
            ..State::default()
        };
        let mut screen = Screen::new("URL");
        screen.show(state, Timeline { now_ms: 200_000, spans: vec![span] });
        screen
    }

    fn drawn(screen: &Screen) -> String {
        let mut terminal = Terminal::new(TestBackend::new(120, 20)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn a_lane_shows_the_last_minutes_and_the_holder() {
        let text = drawn(&screen());
        let lane = text.lines().find(|line| line.contains("gpu0")).unwrap();
        assert_eq!(lane.matches('▒').count(), 30, "a lent half of a lane of 60 cells: {lane}");
        assert!(lane.contains("job/night (lent)"), "{lane}");
        assert!(text.contains("digits") && text.contains("runs"), "{text}");
    }

    #[test]
    fn a_uuid_is_shortened_and_a_name_is_not() {
        assert_eq!(short("GPU-5f1e9c3a-7b1d-4c8e-9f00-0123456789ab"), "GPU-5f1e9c3a");
        assert_eq!(short("gpu-0"), "gpu-0");
        assert_eq!(short("a-long-name-of-a-simulated-device"), "a-long-name-of-a-simulated-device");
    }

    #[test]
    fn a_lost_control_plane_is_said_and_the_last_view_stays() {
        let mut screen = screen();
        screen.fail(&Error::Unreachable { url: "URL".to_owned() });
        let text = drawn(&screen);
        assert!(text.contains("control plane is down, inference goes on"), "{text}");
        assert!(text.contains("gpu0"), "{text}");
    }

    #[test]
    fn a_holder_keeps_its_colour_when_others_come_and_go() {
        let mut screen = screen();
        let before = screen.colour("job", "night");
        let job = |name: &str| view::Job { name: name.into(), ..view::Job::default() };
        screen.show(State { jobs: vec![job("a"), job("night")], ..State::default() }, Timeline::default());
        assert_eq!(screen.colour("job", "night"), before);
        assert_ne!(screen.colour("job", "a"), before);
    }
}
