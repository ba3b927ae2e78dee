//! Ten thousand damaged certificates: each is refused in one sentence, not proved, or proved; none
//! panics, and none that says more than the truth is proved.

use super::*;
use peftml_linalg::{Seed, Stream};
use serde_json::{Value, json};

/// Texts that readers of numbers stumble over.
const NUMBERS: [&str; 24] = [
    "",
    " ",
    "-",
    "+",
    ".",
    "e5",
    "1e",
    "1e+",
    "0x10",
    "1_000",
    "NaN",
    "inf",
    "-inf",
    "1/0",
    "0/1",
    "1/-3",
    "1e400",
    "-1e-400",
    "1e401",
    "1e99999999999999999999",
    "٣",
    "1\n2",
    "1\u{0}",
    "0",
];

fn pick<T: Clone>(items: &[T], stream: &mut Stream) -> T {
    items[stream.below(items.len() as u64) as usize].clone()
}

/// A value that does not belong where it is put.
fn stray(stream: &mut Stream) -> Value {
    match stream.below(9) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(1.5),
        3 => json!({}),
        4 => json!([]),
        5 => json!("9".repeat(stream.below(500) as usize)),
        6 => json!(format!("{}/{}", "7".repeat(150), "3".repeat(1 + stream.below(230) as usize))),
        7 => (0..stream.below(200)).fold(json!("1"), |inner, _| json!([inner])),
        _ => json!(pick(&NUMBERS, stream)),
    }
}

/// All values of a tree, by the path of keys and places to each.
fn paths(value: &Value, here: String, all: &mut Vec<String>) {
    all.push(here.clone());
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, v)| paths(v, format!("{here}/{i}"), all));
        }
        Value::Object(map) => map.iter().for_each(|(k, v)| paths(v, format!("{here}/{k}"), all)),
        _ => {}
    }
}

/// One edit of the tree; the text that it makes.
fn edit(good: &Value, stream: &mut Stream) -> String {
    let mut value = good.clone();
    let mut all = Vec::new();
    paths(&value, String::new(), &mut all);
    let path = pick(&all, stream);
    match stream.below(4) {
        0 => {
            if let Some(place) = value.pointer_mut(&path) {
                *place = stray(stream);
            }
        }
        1 => match value.pointer_mut(&path) {
            Some(Value::Array(items)) => drop(items.pop()),
            Some(Value::Object(map)) => {
                let keys: Vec<String> = map.keys().cloned().collect();
                map.remove(&pick(&keys, stream));
            }
            Some(Value::String(text)) => {
                text.pop();
            }
            _ => {}
        },
        2 => match value.pointer_mut(&path) {
            Some(Value::Array(items)) => {
                let again = pick(items, stream);
                items.push(again);
            }
            Some(Value::String(text)) => text.push_str(pick(&NUMBERS, stream)),
            _ => {}
        },
        _ => {
            let other = value.pointer(&pick(&all, stream)).cloned().unwrap_or(Value::Null);
            if let Some(place) = value.pointer_mut(&path) {
                *place = other;
            }
        }
    }
    value.to_string()
}

/// Bytes changed, cut or doubled, whatever they meant.
fn smear(good: &str, stream: &mut Stream) -> String {
    let mut bytes = good.as_bytes().to_vec();
    for _ in 0..=stream.below(3) {
        let at = stream.below(bytes.len() as u64) as usize;
        match stream.below(4) {
            0 => bytes[at] = stream.below(128) as u8,
            1 => bytes.truncate(at.max(1)),
            2 => bytes.insert(at, pick(b"0159.eE+-/[]{}\",:\\ ", stream)),
            _ => drop(bytes.splice(at..at, good.as_bytes()[..at.min(good.len())].iter().copied())),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn sentence(error: &dyn std::fmt::Display) {
    let text = error.to_string();
    assert!(!text.is_empty() && text.len() < 900, "{text}");
    assert!(!text.chars().any(char::is_control), "several lines: {text:?}");
}

#[test]
fn damaged_certificates_are_refused_in_one_sentence_or_proved_for_what_they_say() {
    let mut counts = [0; 3];
    for instance in [Instance::space(), Instance::plane(), Instance::rank_two()] {
        let good = instance.certify().unwrap().to_json();
        let tree: Value = serde_json::from_str(&good).unwrap();
        // The largest instance costs most; it has k = 2 and the slice.
        let rounds: u64 = if instance.near[0].ncols() > 1 { 400 } else { 4800 };
        for round in 0..rounds {
            let mut stream = Seed::root(4).child(instance.name.as_str()).child(round).stream();
            let text = match round % 2 {
                0 => edit(&tree, &mut stream),
                _ => smear(&good, &mut stream),
            };
            match Certificate::from_json(&text) {
                Err(error) => {
                    sentence(&error);
                    counts[0] += 1;
                }
                Ok(read) => match verify(&read) {
                    Err(error) => {
                        sentence(&error);
                        counts[1] += 1;
                    }
                    Ok(proof) => {
                        assert!(proof.gradient.is_finite() && proof.objective > 0.0);
                        counts[2] += 1;
                    }
                },
            }
        }
    }
    // Every way is gone: refused by the reader, not proved, and damage to words alone.
    assert_eq!(counts.iter().sum::<usize>(), 10_000);
    assert!(counts.iter().all(|count| *count > 300), "{counts:?}");
}
