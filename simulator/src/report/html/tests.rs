use super::*;
use crate::report::{Goal, Row, Series};

fn study() -> Study {
    let row = |what: &str, published: f64, rule: f64, ours: f64, goal: Goal| Row {
        what: what.to_owned(),
        unit: "h",
        published: Some(published),
        rule: Some(rule),
        tolerance: Some(0.05),
        ours: Some(ours),
        goal: Some(goal),
    };
    let mut details = serde_json::Map::new();
    details.insert("evictions per job-hour".to_owned(), 0.0123.into());
    Study {
        name: "pollux".to_owned(),
        assumptions: vec!["a restart costs 30 s & <nothing> else".to_owned()],
        rows: vec![
            row("mean JCT, own batch", 1.12, 1.13, 0.88, Goal::AtMost(0.9)),
            row("mean JCT, co-adapted", 0.76, 0.76, 0.74, Goal::AtMost(0.7)),
        ],
        details,
    }
}

fn charts() -> Vec<Chart> {
    let busy = Series::new("busy", vec![(0.0, 0.0), (1.0, 48.0), (2.0, 64.0), (3.0, 30.0)]);
    let waits = |factor: f64| (0..5000_u32).map(move |n| factor * (f64::from(n) / 700.0).exp() - factor);
    let distributions = ["fifo", "ours"].map(|name| Series::distribution(name, waits(if name == "fifo" { 40.0 } else { 9.0 })));
    vec![
        Chart::over_time("GPUs <busy>", "h", "GPU", vec![busy]),
        Chart::distributions("Wait", "s", distributions.to_vec()),
        Chart::over_time("Nothing", "h", "GPU", vec![Series::default()]),
    ]
}

#[test]
fn a_page_is_whole_without_scripts_or_anything_fetched() {
    let (studies, charts) = ([study()], charts());
    let facts = [Fact::new("GPU-hours", "978 078")];
    let page =
        Page { title: "A & <b>", command: "tidegate simulate study pollux", facts: &facts, studies: &studies, charts: &charts };
    let html = page.to_string();
    assert!(html.starts_with("<!doctype html>") && html.ends_with("</html>\n"));
    for never in ["<script", "http://", "https://", "url(", "<link", "<img", "A & <b>", "<nothing>", "NaN", "inf"] {
        assert!(!html.contains(never), "{never}");
    }
    for wanted in
        ["A &amp; &lt;b&gt;", "1 of 2 goals missed", "✗", "≤ 0.7", "reached", "No values.", "0.0123", "prefers-color-scheme"]
    {
        assert!(html.contains(wanted), "{wanted}");
    }
    balanced(&html);
}

/// Every element that is opened is closed, in order.
fn balanced(html: &str) {
    let body = &html[html.find("<body>").unwrap()..];
    let mut open = Vec::new();
    for tag in body.split('<').skip(1).filter_map(|rest| rest.split('>').next()) {
        if let Some(name) = tag.strip_prefix('/') {
            if name != "html" {
                assert_eq!(open.pop(), Some(name), "at </{name}>");
            }
        } else if !tag.ends_with('/') {
            open.push(tag.split(' ').next().unwrap());
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn every_picture_has_a_title_and_a_table() {
    let charts = charts();
    let html = Page { charts: &charts, ..Page::default() }.to_string();
    assert_eq!(html.matches("<figure").count(), 3);
    assert_eq!(html.matches("class=\"chart\"").count(), 2);
    assert_eq!(html.matches("role=\"img\" aria-label=").count(), 2);
    assert_eq!(html.matches("<table class=\"numbers\">").count(), 2);
    assert!(html.contains("<th scope=\"row\">busy</th><td>0</td><td>0</td><td>37.33</td><td>64</td><td>30</td>"), "{html}");
}

#[test]
fn a_baseline_that_did_not_come_out_makes_the_study_void() {
    let mut study = study();
    study.rows[0].rule = Some(2.0);
    let html = Page { studies: &[study], ..Page::default() }.to_string();
    assert!(html.contains("void: a baseline did not come out") && html.contains(">void</span>"));
}

proptest::proptest! {
    #[test]
    fn any_numbers_and_names_make_a_sound_page(
        points in proptest::collection::vec((proptest::num::f64::ANY, proptest::num::f64::ANY), 0..40),
        name in "\\PC{0,20}",
        log_x in proptest::bool::ANY,
    ) {
        let mut chart = Chart::over_time(name.clone(), "s", "%", vec![Series::new(name, points)]);
        chart.log_x = log_x;
        for kind in [crate::report::Kind::Steps, crate::report::Kind::Line, crate::report::Kind::Cumulative] {
            chart.kind = kind;
            let html = Page { charts: std::slice::from_ref(&chart), ..Page::default() }.to_string();
            balanced(&html);
            proptest::prop_assert!(!html.contains("NaN"));
        }
    }
}
