//! What the operator answers to people: the engine's state, its decisions, the page's view.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tidegate_api::view;
use tidegate_core::Engine;

use crate::control_plane::{ADMIN, ControlPlane};
use crate::harness::until;
use crate::installation::leader;

/// It answers two questions at once; a third one is told to come again.
const PATIENCE: Duration = Duration::from_secs(30);
/// It keeps so many decisions: of more the oldest are not known.
const MOST_DECISIONS: usize = 500;

/// A decision.
#[derive(Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decision {
    pub at_ms: u64,
    pub subject: String,
    pub action: String,
    pub category: String,
}

/// The engine, as of now.
pub async fn state(plane: &ControlPlane) -> Result<Engine> {
    Ok(Engine::restore(&ask(plane, "/snapshot").await?)?)
}

/// The page's view.
pub async fn view(plane: &ControlPlane) -> Result<view::State> {
    parsed(&ask(plane, "/state").await?)
}

/// The last decisions, each once.
pub async fn decisions(plane: &ControlPlane) -> Result<std::collections::BTreeSet<Decision>> {
    #[derive(Deserialize)]
    struct Plans {
        plans: Vec<Decision>,
    }
    let Plans { plans } = parsed(&ask(plane, "/plans").await?)?;
    ensure!(plans.len() < MOST_DECISIONS, "there were more than {MOST_DECISIONS} decisions: the first are not known any more");
    Ok(plans.into_iter().collect())
}

fn parsed<T: DeserializeOwned>(text: &str) -> Result<T> {
    Ok(serde_json::from_str(text)?)
}

async fn ask(plane: &ControlPlane, path: &str) -> Result<String> {
    let look = || async {
        let url = format!("{}{path}", leader(plane).await?);
        let (status, text) = plane.get(&url, Some(ADMIN)).await?;
        Ok((status == 200).then_some(text))
    };
    until(&format!("the operator to answer {path}"), PATIENCE, look).await
}
