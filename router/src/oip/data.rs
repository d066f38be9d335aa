//! JSON tensor data to little-endian bytes and back.
//!
//! The text is known to be valid JSON; it is read once, number by number, straight into the bytes that
//! the replica gets. Arrays may be nested or flat: only the order of the elements counts.

use std::str::FromStr;

use half::f16;

use crate::tensor::{Datatype, split_bytes};

/// The elements of `text`, which must be `expected` of them.
pub fn parse(text: &str, datatype: Datatype, expected: usize) -> Result<Vec<u8>, String> {
    match datatype {
        Datatype::Bool => all(text, expected, 1, |t, out| boolean(t).map(|v| out.push(u8::from(v)))),
        Datatype::Uint8 => all(text, expected, 1, |t, out| number::<u8>(t).map(|v| out.push(v))),
        Datatype::Int8 => all(text, expected, 1, |t, out| number::<i8>(t).map(|v| out.extend(v.to_le_bytes()))),
        Datatype::Uint16 => all(text, expected, 2, |t, out| number::<u16>(t).map(|v| out.extend(v.to_le_bytes()))),
        Datatype::Int16 => all(text, expected, 2, |t, out| number::<i16>(t).map(|v| out.extend(v.to_le_bytes()))),
        Datatype::Uint32 => all(text, expected, 4, |t, out| number::<u32>(t).map(|v| out.extend(v.to_le_bytes()))),
        Datatype::Int32 => all(text, expected, 4, |t, out| number::<i32>(t).map(|v| out.extend(v.to_le_bytes()))),
        Datatype::Uint64 => all(text, expected, 8, |t, out| number::<u64>(t).map(|v| out.extend(v.to_le_bytes()))),
        Datatype::Int64 => all(text, expected, 8, |t, out| number::<i64>(t).map(|v| out.extend(v.to_le_bytes()))),
        Datatype::Fp16 => all(text, expected, 2, |t, out| number::<f32>(t).map(|v| out.extend(f16::from_f32(v).to_le_bytes()))),
        Datatype::Fp32 => all(text, expected, 4, |t, out| number::<f32>(t).map(|v| out.extend(v.to_le_bytes()))),
        Datatype::Fp64 => all(text, expected, 8, |t, out| number::<f64>(t).map(|v| out.extend(v.to_le_bytes()))),
        Datatype::Bytes => all(text, expected, 4, string),
    }
}

fn number<T: FromStr>(token: &str) -> Result<T, String> {
    token.parse().map_err(|_| format!("{token} is not a value of the input's datatype"))
}

fn boolean(token: &str) -> Result<bool, String> {
    match token {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("{token} is not a value of the input's datatype")),
    }
}

fn string(token: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let text: String = serde_json::from_str(token).map_err(|_| format!("{token} is not a string"))?;
    let length = u32::try_from(text.len()).map_err(|_| "a string is too long".to_owned())?;
    out.extend(length.to_le_bytes());
    out.extend(text.as_bytes());
    Ok(())
}

/// Feeds each element of the arrays in `text` to `push`.
fn all(
    text: &str,
    expected: usize,
    size: usize,
    push: impl Fn(&str, &mut Vec<u8>) -> Result<(), String>,
) -> Result<Vec<u8>, String> {
    // An element and its comma take two characters at least: a large claim with little text reserves little.
    let mut out = Vec::with_capacity(expected.min(text.len() / 2 + 1).saturating_mul(size));
    let mut count = 0usize;
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| !matches!(c, '[' | ']' | ',' | ' ' | '\n' | '\r' | '\t')) {
        let (_, from) = rest.split_at(start);
        let (token, tail) = from.split_at(token_length(from));
        count += 1;
        if count > expected {
            return Err(format!("more than the {expected} elements that the shape tells"));
        }
        push(token, &mut out)?;
        rest = tail;
    }
    if count == expected { Ok(out) } else { Err(format!("{count} elements where the shape tells {expected}")) }
}

/// Length of the element at the start of `text`. An object is one element, which no datatype takes.
fn token_length(text: &str) -> usize {
    if text.starts_with('"') {
        let mut escaped = false;
        let end = text.char_indices().skip(1).find(|(_, c)| {
            let closes = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            closes
        });
        return end.map_or(text.len(), |(at, _)| at + 1);
    }
    text.find([',', ']', ' ', '\n', '\r', '\t', '[']).unwrap_or(text.len()).max(1)
}

/// Appends `[1.5,2,...]`. Nothing if the data does not fit the datatype.
pub fn write(out: &mut Vec<u8>, datatype: Datatype, data: &[u8]) -> Option<()> {
    match datatype {
        Datatype::Bool => each(out, data, |[v]: [u8; 1]| v != 0),
        Datatype::Uint8 => each(out, data, u8::from_le_bytes),
        Datatype::Int8 => each(out, data, i8::from_le_bytes),
        Datatype::Uint16 => each(out, data, u16::from_le_bytes),
        Datatype::Int16 => each(out, data, i16::from_le_bytes),
        Datatype::Uint32 => each(out, data, u32::from_le_bytes),
        Datatype::Int32 => each(out, data, i32::from_le_bytes),
        Datatype::Uint64 => each(out, data, u64::from_le_bytes),
        Datatype::Int64 => each(out, data, i64::from_le_bytes),
        Datatype::Fp16 => each(out, data, |v| f16::from_le_bytes(v).to_f32()),
        Datatype::Fp32 => each(out, data, f32::from_le_bytes),
        Datatype::Fp64 => each(out, data, f64::from_le_bytes),
        Datatype::Bytes => list(out, split_bytes(data)?.into_iter().map(String::from_utf8_lossy)),
    }
}

fn each<const N: usize, V: serde::Serialize>(out: &mut Vec<u8>, data: &[u8], value: impl Fn([u8; N]) -> V) -> Option<()> {
    let (elements, rest) = data.as_chunks::<N>();
    if rest.is_empty() { list(out, elements.iter().map(|element| value(*element))) } else { None }
}

fn list<V: serde::Serialize>(out: &mut Vec<u8>, values: impl Iterator<Item = V>) -> Option<()> {
    out.push(b'[');
    for (at, value) in values.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, &value).ok()?;
    }
    out.push(b']');
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    #[test]
    fn nested_and_flat_arrays_give_the_same_bytes() {
        let wanted = floats(&[1.0, -2.5, 3e-2, 4.0]);
        assert_eq!(parse("[1, -2.5,\n 3e-2 ,4]", Datatype::Fp32, 4), Ok(wanted.clone()));
        assert_eq!(parse("[[1,-2.5],[3e-2,4]]", Datatype::Fp32, 4), Ok(wanted));
    }

    #[test]
    fn a_value_outside_the_datatype_is_named() {
        for (text, datatype) in [
            ("[256]", Datatype::Uint8),
            ("[-1]", Datatype::Uint64),
            ("[1.5]", Datatype::Int32),
            ("[\"1\"]", Datatype::Fp32),
            ("[null]", Datatype::Fp64),
            ("[{\"a\":1}]", Datatype::Int8),
            ("[2]", Datatype::Bool),
            ("[1]", Datatype::Bytes),
        ] {
            assert!(parse(text, datatype, 1).is_err(), "{text} as {datatype:?}");
        }
    }

    #[test]
    fn a_wrong_number_of_elements_is_told() {
        assert!(parse("[1,2,3]", Datatype::Fp32, 2).unwrap_err().contains("more than the 2"));
        assert!(parse("[1]", Datatype::Fp32, 2).unwrap_err().contains("1 elements where the shape tells 2"));
        assert!(parse("[1]", Datatype::Fp32, usize::MAX).is_err());
    }

    #[test]
    fn strings_may_contain_anything() {
        let bytes = parse(r#"["a,]\"b\\", "", "é"]"#, Datatype::Bytes, 3).unwrap();
        assert_eq!(split_bytes(&bytes).unwrap(), [&b"a,]\"b\\"[..], b"", "é".as_bytes()]);
    }

    #[test]
    fn what_is_written_reads_back() {
        for (datatype, text) in [
            (Datatype::Bool, "[true,false]"),
            (Datatype::Uint8, "[0,255]"),
            (Datatype::Int8, "[-128,127]"),
            (Datatype::Uint16, "[0,65535]"),
            (Datatype::Int16, "[-32768,7]"),
            (Datatype::Uint32, "[0,4294967295]"),
            (Datatype::Int32, "[-2147483648,7]"),
            (Datatype::Uint64, "[0,18446744073709551615]"),
            (Datatype::Int64, "[-9223372036854775808,7]"),
            (Datatype::Fp16, "[0.5,-2.0]"),
            (Datatype::Fp32, "[0.1,-2.0]"),
            (Datatype::Fp64, "[0.1,1e300]"),
            (Datatype::Bytes, "[\"x\",\"y\\n\"]"),
        ] {
            let mut out = Vec::new();
            write(&mut out, datatype, &parse(text, datatype, 2).unwrap()).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), text.replace("1e300", "1e+300"), "{datatype:?}");
        }
    }

    #[test]
    fn data_that_does_not_fit_is_not_written() {
        assert_eq!(write(&mut Vec::new(), Datatype::Fp32, &[0; 5]), None);
        assert_eq!(write(&mut Vec::new(), Datatype::Bytes, &[9, 0, 0, 0]), None);
    }
}
