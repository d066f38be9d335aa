//! Rows over the Open Inference Protocol. Each row has a label that the model is known to get right,
//! so an answer that belongs to another row of the batch does not pass.

use bytes::Bytes;
use serde::Deserialize;

/// One input with the class that it is of.
#[derive(Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) label: usize,
    pub(crate) values: Vec<f32>,
}

/// Lines `label,value,value,...`. Errors: the line from 1, and what is wrong with it.
pub(crate) fn parse_rows(text: &str, width: usize, classes: usize) -> Result<Vec<Row>, (usize, String)> {
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
    let rows: Vec<Row> = lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| parse_row(line, width, classes).map_err(|problem| (number, problem)))
        .collect::<Result<_, _>>()?;
    if rows.is_empty() { Err((1, "no row; add at least one".into())) } else { Ok(rows) }
}

fn parse_row(line: &str, width: usize, classes: usize) -> Result<Row, String> {
    let mut cells = line.split(',');
    let label = cells.next().unwrap_or_default().trim();
    let label: usize = label.parse().map_err(|_| format!("label {label:?} must be a whole number"))?;
    let number = |cell: &str| cell.trim().parse().map_err(|_| format!("{cell:?} must be a number"));
    let values: Vec<f32> = cells.map(number).collect::<Result<_, _>>()?;
    if label >= classes {
        return Err(format!("label {label} must be below classes = {classes}"));
    }
    if values.len() != width {
        return Err(format!("{} values after the label; shape asks for {width}", values.len()));
    }
    Ok(Row { label, values })
}

/// An inference request of one row.
pub(crate) fn body(input: &str, shape: &[usize], values: &[f32]) -> Bytes {
    let mut full_shape = vec![1];
    full_shape.extend_from_slice(shape);
    let tensor = serde_json::json!({"name": input, "datatype": "FP32", "shape": full_shape, "data": values});
    serde_json::json!({ "inputs": [tensor] }).to_string().into()
}

#[derive(Deserialize)]
struct Response {
    outputs: Vec<Output>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    shape: Vec<usize>,
    data: Vec<f32>,
}

/// What right answers look like.
pub(crate) struct Answers {
    output: String,
    classes: usize,
    labels: Vec<usize>,
}

impl Answers {
    pub(crate) fn new(output: String, classes: usize, labels: Vec<usize>) -> Self {
        Self { output, classes, labels }
    }

    pub(crate) fn check(&self, pick: usize, body: &[u8]) -> Result<(), String> {
        let response: Response = serde_json::from_slice(body).map_err(|e| format!("not an inference response: {e}"))?;
        let named = response.outputs.iter().find(|output| output.name == self.output);
        let output = named.ok_or_else(|| format!("no output {:?}", self.output))?;
        if output.shape != [1, self.classes] || output.data.len() != self.classes {
            return Err(format!("shape {:?} with {} values, not [1, {}]", output.shape, output.data.len(), self.classes));
        }
        let sum: f32 = output.data.iter().sum();
        if (sum - 1.0).abs() > 1e-3 {
            return Err(format!("probabilities sum to {sum}, not 1"));
        }
        let likeliest = output.data.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(class, _)| class);
        if likeliest == self.labels.get(pick).copied() {
            Ok(())
        } else {
            Err(format!("class {likeliest:?} is not the row's own"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> Answers {
        Answers::new("p".into(), 3, vec![1, 2])
    }

    fn response(name: &str, shape: &str, data: &str) -> Vec<u8> {
        format!(r#"{{"model_name":"m","outputs":[{{"name":"{name}","datatype":"FP32","shape":{shape},"data":{data}}}]}}"#)
            .into_bytes()
    }

    #[test]
    fn rows_are_read_past_comments() {
        let rows = parse_rows("# label, pixels\n2, 0, 16\n\n0,1,2.5\n", 2, 3).unwrap();
        assert_eq!(rows, [Row { label: 2, values: vec![0.0, 16.0] }, Row { label: 0, values: vec![1.0, 2.5] }]);
    }

    #[test]
    fn a_wrong_row_is_named_by_its_line() {
        assert_eq!(parse_rows("1,2,3\n9,1,1\n", 2, 3).unwrap_err(), (2, "label 9 must be below classes = 3".into()));
        assert_eq!(parse_rows("1,2\n", 2, 3).unwrap_err(), (1, "1 values after the label; shape asks for 2".into()));
        assert_eq!(parse_rows("1,x,2\n", 2, 3).unwrap_err(), (1, "\"x\" must be a number".into()));
        assert!(parse_rows("# nothing\n", 2, 3).is_err());
    }

    #[test]
    fn a_body_has_a_batch_of_one_row() {
        let body = body("image", &[2], &[0.0, 16.0]);
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value["inputs"][0]["shape"], serde_json::json!([1, 2]));
        assert_eq!(value["inputs"][0]["data"], serde_json::json!([0.0, 16.0]));
    }

    #[test]
    fn the_right_answer_passes() {
        assert_eq!(answers().check(0, &response("p", "[1,3]", "[0.1,0.8,0.1]")), Ok(()));
    }

    #[test]
    fn the_answer_to_another_row_does_not() {
        assert!(answers().check(1, &response("p", "[1,3]", "[0.1,0.8,0.1]")).unwrap_err().contains("row's own"));
    }

    #[test]
    fn wrong_names_shapes_sums_and_bodies_do_not() {
        assert!(answers().check(0, &response("q", "[1,3]", "[0.1,0.8,0.1]")).is_err());
        assert!(answers().check(0, &response("p", "[3]", "[0.1,0.8,0.1]")).is_err());
        assert!(answers().check(0, &response("p", "[1,3]", "[0.8,0.2]")).is_err());
        assert!(answers().check(0, &response("p", "[1,3]", "[0.1,0.9,0.1]")).unwrap_err().contains("sum"));
        assert!(answers().check(0, b"{").is_err());
    }
}
