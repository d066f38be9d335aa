//! What is sent to a model and what a right answer looks like. Every request is rendered once,
//! before the day begins: sending costs no more than the sending.

mod embeddings;
mod oip;

use bytes::Bytes;

use crate::script::{Error, ModelScript, Script, TrafficScript};

/// The prepared requests of one model.
pub(crate) struct Traffic {
    /// Path on the server.
    pub(crate) path: String,
    /// Bodies to choose from.
    pub(crate) bodies: Vec<Bytes>,
    answers: Answers,
}

enum Answers {
    Oip(oip::Answers),
    Embeddings(embeddings::Answers),
}

impl Traffic {
    pub(crate) fn prepare(script: &Script, model: &ModelScript, seed: u64) -> Result<Self, Error> {
        match &model.traffic {
            TrafficScript::Oip { input, shape, output, classes, rows } => {
                let path = script.folder.join(rows);
                let text = std::fs::read_to_string(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
                let rows = oip::parse_rows(&text, shape.iter().product(), *classes)
                    .map_err(|(line, problem)| Error::Invalid { path, field: format!("line {line}"), problem })?;
                let bodies = rows.iter().map(|row| oip::body(input, shape, &row.values)).collect();
                let labels = rows.iter().map(|row| row.label).collect();
                let answers = Answers::Oip(oip::Answers::new(output.clone(), *classes, labels));
                Ok(Self { path: format!("/v2/models/{}/infer", model.name), bodies, answers })
            }
            TrafficScript::Embeddings { dimensions, sentences } => {
                let texts = embeddings::sentences(*sentences, seed);
                let bodies = texts.iter().map(|text| embeddings::body(&model.name, text)).collect();
                let answers = Answers::Embeddings(embeddings::Answers::new(*dimensions, *sentences));
                Ok(Self { path: "/v1/embeddings".into(), bodies, answers })
            }
        }
    }

    /// Whether `body` answers the request `pick`; if not, why.
    pub(crate) fn check(&self, pick: usize, body: &[u8]) -> Result<(), String> {
        match &self.answers {
            Answers::Oip(answers) => answers.check(pick, body),
            Answers::Embeddings(answers) => answers.check(pick, body),
        }
    }
}
