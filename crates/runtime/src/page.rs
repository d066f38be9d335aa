//! The web page of a running `up`, embedded in the executable.
//!
//! The files in `page/` are served as they are: plain HTML, CSS and JavaScript modules without a library or
//! a build step. They read the API of `tidegate_api::view` and nothing else.
//!
//! Guarantees: everything comes from this server (a strict content security policy: no inline script or
//! style, no other origin), and names from manifests reach the page as text, never as markup.

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue};
use axum::routing::get;

const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Path, content type, content.
const FILES: [(&str, &str, &str); 9] = [
    ("/", "text/html; charset=utf-8", include_str!("page/page.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("/page.svg", "image/svg+xml", include_str!("page/page.svg")),
    ("/page.js", SCRIPT, include_str!("page/page.js")),
    ("/page/source.js", SCRIPT, include_str!("page/source.js")),
    ("/page/dom.js", SCRIPT, include_str!("page/dom.js")),
    ("/page/lanes.js", SCRIPT, include_str!("page/lanes.js")),
    ("/page/chart.js", SCRIPT, include_str!("page/chart.js")),
    ("/page/panels.js", SCRIPT, include_str!("page/panels.js")),
];

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page at `/` and its files beside it.
pub fn routes() -> Router {
    FILES.into_iter().fold(Router::new(), |router, (path, kind, content)| {
        router.route(path, get(move || async move { (headers(kind), content) }))
    })
}

fn headers(kind: &'static str) -> [(HeaderName, HeaderValue); 4] {
    [
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        // A new executable brings a new page at once.
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(path: &str) -> &'static str {
        FILES.iter().find(|(p, ..)| *p == path).map(|(.., content)| *content).unwrap()
    }

    #[test]
    fn the_page_keeps_its_own_policy() {
        let html = content("/");
        assert!(!html.contains("style=") && !html.contains("<style") && !html.contains(" on"), "nothing inline");
        assert_eq!(html.matches("<script").count(), html.matches("<script type=\"module\" src=\"/").count());
        for (path, _, text) in FILES {
            assert!(!text.contains("innerHTML"), "{path}: text only");
            let outside = text.replace("http://www.w3.org/", "");
            assert!(!outside.contains("http://") && !outside.contains("https://"), "{path}: no other origin");
        }
    }

    #[test]
    fn every_file_that_the_page_asks_for_is_served() {
        let quoted = FILES.iter().flat_map(|(.., text)| text.split(['"', '\'']));
        let asked: Vec<&str> = quoted.filter(|word| word.starts_with("/page")).collect();
        assert!(asked.len() >= 3, "{asked:?}");
        for path in asked {
            assert!(FILES.iter().any(|(served, ..)| *served == path), "{path}");
        }
    }

    #[test]
    fn the_router_takes_every_path() {
        // Axum refuses bad or doubled paths by a panic when the router is made.
        let _router = routes();
    }
}
