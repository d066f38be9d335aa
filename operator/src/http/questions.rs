//! Questions that a copy of the world is asked: why, when, and what if.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tidegate_api::eta::{self, NoEta};
use tidegate_api::what_if::Request;
use tidegate_core::explain::{self, Explanation};
use tidegate_core::names::{JobName, ModelName};
use tidegate_core::what_if;

use super::Asker;
use crate::facts::PodKey;
use crate::index::Known;
use crate::view;
use crate::world::{Ask, Scene};

/// Whom somebody asks about.
#[derive(Deserialize)]
pub(super) struct About {
    job: Option<String>,
    model: Option<String>,
}

/// The engine's state, as `tidegate simulate` and `what-if` read it.
pub(super) async fn snapshot(State(asker): State<Asker>) -> Response {
    let answer = asker.copy("snapshot", |scene| match scene.engine.snapshot() {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], text).into_response(),
        Err(problem) => told(StatusCode::INTERNAL_SERVER_ERROR, format!("write the snapshot: {problem}")),
    });
    answer.await
}

/// Why a job or a model stands as it does.
pub(super) async fn explain(State(asker): State<Asker>, Query(about): Query<About>) -> Response {
    let Some(subject) = Subject::of(about) else {
        let remedy =
            "name a job or a model: /explain?job=pod/NAMESPACE/NAME, /explain?job=gang/NAMESPACE/NAME or /explain?model=NAME";
        return told(StatusCode::BAD_REQUEST, remedy);
    };
    let subject = match subject.known(&asker).await {
        Ok(subject) => subject,
        Err(response) => return response,
    };
    let answer = asker.copy("explain", move |scene| match subject.explained(scene) {
        Some(found) => {
            Json(json!({"status": found.status, "because": found.because, "wouldChange": found.would_change})).into_response()
        }
        None => told(StatusCode::NOT_FOUND, subject.missing()),
    });
    answer.await
}

/// Of which there is one of that name, perhaps.
enum Subject {
    Job(String),
    Model(String),
}

impl Subject {
    /// Names may be as reasons and plans say them.
    fn of(about: About) -> Option<Self> {
        let plain = |name: &str, kind: &str| name.strip_prefix(kind).unwrap_or(name).to_owned();
        match (about.job, about.model) {
            (Some(name), None) => Some(Self::Job(plain(&name, "job/"))),
            (None, Some(name)) => Some(Self::Model(plain(&name, "model/"))),
            (None, None) | (Some(_), Some(_)) => None,
        }
    }

    /// A pod by its own name, whatever it is of: of a gang, a worker, a replica.
    async fn known(self, asker: &Asker) -> Result<Self, Response> {
        let pod = if let Self::Job(name) = &self { name.strip_prefix("pod/").map(|key| PodKey(key.into())) } else { None };
        let Some(pod) = pod else { return Ok(self) };
        let known = asker.world(|to| Ask::Known(pod, to)).await?;
        Ok(match known {
            Some(Known::Job(name)) => Self::Job(name.0.to_string()),
            Some(Known::Model(name)) => Self::Model(name.0.to_string()),
            None => self,
        })
    }

    fn explained(&self, scene: &Scene) -> Option<Explanation> {
        match self {
            Self::Job(name) => explain::job(&scene.engine, &JobName::from(name.as_str()), scene.at),
            Self::Model(name) => explain::model(&scene.engine, &ModelName::from(name.as_str()), scene.at),
        }
    }

    fn missing(&self) -> String {
        match self {
            Self::Job(name) => format!(
                "there is no job {name}: a pod is pod/NAMESPACE/NAME, all pods of a gang are gang/NAMESPACE/GANG, a training \
                 job is training/NAMESPACE/NAME; one that is refused, or whose gang is not whole, has its reason in its condition"
            ),
            Self::Model(name) => format!("there is no model {name}; one that is refused has its reason in its condition"),
        }
    }
}

/// When those that wait are expected to start, or one of them.
pub(super) async fn eta(State(asker): State<Asker>, Query(About { job, .. }): Query<About>) -> Response {
    let job = match job {
        Some(name) => match Subject::Job(name.strip_prefix("job/").unwrap_or(&name).to_owned()).known(&asker).await {
            Ok(Subject::Job(name)) => Some(name),
            Ok(Subject::Model(name)) => {
                return told(
                    StatusCode::CONFLICT,
                    format!("{name} is a model, of which no start is foretold; /explain?model={name} tells how it is"),
                );
            }
            Err(response) => return response,
        },
        None => None,
    };
    let answer = asker.copy("eta", move |scene| {
        let Some(name) = job else { return Json(eta::all(&scene.engine, scene.at)).into_response() };
        match eta::of(&scene.engine, &name, scene.at) {
            Ok(etas) => Json(etas).into_response(),
            Err(NoEta::Unknown(name)) => told(StatusCode::NOT_FOUND, format!("there is no job {name}; see /state")),
            Err(NoEta::NotWaiting(name)) => {
                told(StatusCode::CONFLICT, format!("job {name} does not wait; /explain?job={name} tells how it is"))
            }
        }
    });
    answer.await
}

/// What changes would do.
pub(super) async fn what_if(State(asker): State<Asker>, body: String) -> Response {
    let request: Request = match serde_json::from_str(&body) {
        Ok(request) => request,
        Err(e) => return told(StatusCode::BAD_REQUEST, format!("the body is no what-if request: {e}")),
    };
    if let Err(wrong) = request.check() {
        return told(StatusCode::BAD_REQUEST, wrong);
    }
    let answer =
        asker.copy("what_if", move |scene| match what_if::run(&scene.engine, &request.changes, scene.at, request.horizon_ms) {
            Ok(difference) => Json(difference).into_response(),
            Err(e) => told(StatusCode::UNPROCESSABLE_ENTITY, e.to_string()),
        });
    answer.await
}

/// Everything that the page shows at a glance.
pub(super) async fn state(State(asker): State<Asker>) -> Response {
    match asker.look().await {
        Ok(look) => ([(header::CACHE_CONTROL, "no-store")], Json(look.page.as_ref())).into_response(),
        Err(response) => response,
    }
}

#[derive(Deserialize)]
pub(super) struct Since {
    #[serde(default)]
    since: u64,
}

/// Who held which GPU when.
pub(super) async fn timeline(State(asker): State<Asker>, Query(Since { since }): Query<Since>) -> Response {
    match asker.look().await {
        Ok(look) => Json(view::timeline(&look.scene, &look.page, since)).into_response(),
        Err(response) => response,
    }
}

/// The last decisions, oldest first.
pub(super) async fn decisions(State(asker): State<Asker>) -> Response {
    match asker.look().await {
        Ok(look) => Json(view::decisions(&look.scene)).into_response(),
        Err(response) => response,
    }
}

pub(super) fn told(status: StatusCode, text: impl AsRef<str>) -> Response {
    (status, format!("{}\n", text.as_ref())).into_response()
}
