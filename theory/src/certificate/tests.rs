use super::number::{parse, shortest_decimal};
use super::*;
use num_traits::{Signed, ToPrimitive};

fn number(text: &str) -> f64 {
    parse(text).unwrap().to_f64().unwrap()
}

/// The certificate with every coordinate of the centre moved by `step` times a sign.
fn shifted(certificate: &Certificate, step: f64) -> Certificate {
    let mut moved = certificate.clone();
    for (index, text) in moved.centre.values.iter_mut().enumerate() {
        let sign = if index % 3 == 1 { -1.0 } else { 1.0 };
        *text = shortest_decimal(number(text) + sign * step);
    }
    moved
}

#[test]
fn every_instance_is_certified_and_proved_from_its_file() {
    for instance in Instance::all() {
        let certificate = instance.certify().unwrap_or_else(|e| panic!("{}: {e}", instance.name));
        let read = Certificate::from_json(&certificate.to_json()).unwrap();
        assert_eq!(read, certificate);
        let proof = verify(&read).unwrap();
        assert!(proof.by_box, "{}: {proof:?}", instance.name);
        assert!(number(&certificate.radius) < 1e-8);
    }
}

#[test]
fn bounds_are_those_of_the_theory() {
    // theory.md C7: smallest curvatures and values.
    for (instance, curvature, value) in [
        (Instance::integer(), 0.299735755852, 3.19522100931253),
        (Instance::integer().padded(8), 0.29974, 3.19522100931253),
        (Instance::integer().copied(2), 0.14987, 3.19522100931253),
        (Instance::plane(), 0.0558, 0.0469394605),
        (Instance::space(), 0.0097, 0.0037474902),
        (Instance::rank_two(), 0.29974, 3.19522100931253),
    ] {
        let certificate = instance.certify().unwrap();
        let lower = number(&certificate.lambda_min_lower);
        // Half a unit of the last digit given there, and the millionth that the claim gives away.
        assert!((lower - curvature).abs() < 5.1e-5, "{}: {lower}", instance.name);
        let objective = number(&certificate.objective_lower);
        assert!((objective - value).abs() < 1e-7 * value.max(0.1), "{objective}");
    }
}

#[test]
fn a_shifted_centre_is_not_proved() {
    for instance in
        [Instance::integer(), Instance::plane(), Instance::space(), Instance::rank_two()]
    {
        let certificate = instance.certify().unwrap();
        let unknowns = certificate.centre.values.len() as f64;
        // Ten radii in the Euclidean norm.
        let step = 11.0 * number(&certificate.radius) / unknowns.sqrt();
        assert!(matches!(verify(&shifted(&certificate, step)), Err(ProofError::Existence { .. })));
        // Control of the control: a shift below the radius over cond(H) < 1e4 is proved.
        let mut close = shifted(&certificate, 1e-5 * step);
        close.gradient_upper = "1".into();
        verify(&close).unwrap();
    }
}

#[test]
fn bounds_beyond_the_truth_are_not_proved() {
    for instance in Instance::all() {
        let certificate = instance.certify().unwrap();
        let mut claimed = certificate.clone();
        claimed.lambda_min_lower = shortest_decimal(1.0001 * number(&claimed.lambda_min_lower));
        assert!(matches!(verify(&claimed), Err(ProofError::Curvature { .. })), "{}", instance.name);
        let mut claimed = certificate.clone();
        claimed.objective_lower = shortest_decimal(1.0001 * number(&claimed.objective_lower));
        assert!(matches!(verify(&claimed), Err(ProofError::Objective { .. })));
        let mut claimed = certificate.clone();
        claimed.gradient_upper = "1e-300".into();
        assert!(matches!(verify(&claimed), Err(ProofError::Gradient { .. })));
        let mut claimed = certificate.clone();
        claimed.radius = "1e-30".into();
        assert!(matches!(verify(&claimed), Err(ProofError::Existence { .. })));
        let mut claimed = certificate;
        claimed.radius = "1".into();
        assert!(matches!(verify(&claimed), Err(ProofError::Curvature { .. })));
    }
}

#[test]
fn one_wrong_offset_is_not_proved() {
    let mut certificate = Instance::integer().certify().unwrap();
    certificate.instance.values[5] = "-1.000001".into();
    assert!(matches!(verify(&certificate), Err(ProofError::Existence { .. })));
}

#[test]
fn the_largest_norm_and_quotients_are_proved_too() {
    let mut certificate = Instance::space().certify().unwrap();
    certificate.norm = Norm::Max;
    verify(&certificate).unwrap();
    certificate.instance.values[0] = "1/2".into();
    certificate.radius = "1/10000000000".into();
    verify(&certificate).unwrap();
    // A denominator too large for whole numbers: intervals carry it.
    certificate.instance.values[3] = format!("9{}/1{}", "0".repeat(190), "0".repeat(191));
    let prime = format!("{}7", "1".repeat(180));
    for index in 0..9 {
        let text = &mut certificate.centre.values[index];
        let exact = parse(text).unwrap();
        let over = parse(&format!("{prime}{index}")).unwrap();
        let rounded = (exact * &over).round() / over;
        *text = format!("{}/{}", rounded.numer(), rounded.denom());
    }
    certificate.gradient_upper = "1e-13".into();
    verify(&certificate).unwrap();
}

#[test]
fn a_rank_deficient_point_has_no_slice() {
    let mut instance = Instance::integer();
    let widen =
        |m: &faer::Mat<f64>| faer::Mat::from_fn(4, 2, |a, i| if i == 0 { m[(a, 0)] } else { 0.0 });
    instance.offsets = instance.offsets.iter().map(widen).collect();
    instance.near = instance.near.iter().map(widen).collect();
    assert!(instance.certify().is_err());
    let mut certificate = Instance::rank_two().certify().unwrap();
    for index in (1..certificate.centre.values.len()).step_by(2) {
        certificate.centre.values[index] = "0".into();
    }
    assert!(matches!(verify(&certificate), Err(ProofError::Slice { task: 0 })));
}

#[test]
fn a_global_minimum_and_a_far_start_get_no_certificate() {
    let mut instance = Instance::integer();
    instance.near = instance.offsets.clone();
    assert!(matches!(instance.certify(), Err(MakeError::NotAboveZero { .. })));
    let mut instance = Instance::integer();
    instance.near =
        instance.near.iter().map(|m| faer::Mat::from_fn(4, 1, |a, _| 0.7 * m[(a, 0)])).collect();
    assert!(instance.certify().is_err());
    let mut instance = Instance::integer();
    instance.near.pop();
    assert!(matches!(instance.certify(), Err(MakeError::Shape { .. })));
    let instance = Instance::integer().padded(200);
    assert!(matches!(instance.certify(), Err(MakeError::TooLarge { unknowns: 600, .. })));
}

#[test]
fn hostile_files_are_typed_errors() {
    let good = Instance::space().certify().unwrap().to_json();
    let edit = |key: &str, value: &str| {
        let mut object: serde_json::Value = serde_json::from_str(&good).unwrap();
        object[key] = serde_json::from_str(value).unwrap();
        Certificate::from_json(&object.to_string())
    };
    let without = |key: &str| {
        let mut object: serde_json::Value = serde_json::from_str(&good).unwrap();
        object.as_object_mut().unwrap().remove(key);
        Certificate::from_json(&object.to_string())
    };
    for key in ["claim", "instance", "centre", "radius", "norm", "lambda_min_lower"] {
        assert!(matches!(without(key), Err(ReadError::Missing { .. })), "{key}");
        assert!(matches!(edit(key, "3"), Err(ReadError::Type { .. })), "{key}");
        assert!(edit(key, "null").is_err(), "{key}");
    }
    assert!(matches!(edit("radius", "\"NaN\""), Err(ReadError::Number { .. })));
    assert!(matches!(edit("radius", "\"1e999999999\""), Err(ReadError::Number { .. })));
    assert!(matches!(edit("radius", "\"0\""), Err(ReadError::NotPositive { key: "radius" })));
    assert!(matches!(edit("objective_lower", "\"-1\""), Err(ReadError::NotPositive { .. })));
    assert!(matches!(edit("norm", "\"1\""), Err(ReadError::Norm)));
    assert!(matches!(edit("centre", r#"[["1","2"],["3","4"]]"#), Err(ReadError::Shape { .. })));
    assert!(matches!(edit("centre", r#"[["1","2"],["3"]]"#), Err(ReadError::Shape { .. })));
    assert!(matches!(edit("instance", "[]"), Err(ReadError::Shape { .. })));
    assert!(matches!(edit("instance", "[[]]"), Err(ReadError::Shape { .. })));
    assert!(matches!(edit("instance", "[[[]]]"), Err(ReadError::Shape { .. })));
    assert!(matches!(edit("instance", "[[1.0]]"), Err(ReadError::Type { .. })));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(Certificate::from_json(&deep), Err(ReadError::Json { .. })));
    assert!(matches!(Certificate::from_json(&good[..40]), Err(ReadError::Json { .. })));
    assert!(matches!(Certificate::from_json("[]"), Err(ReadError::Type { .. })));
    let long = format!("[{}]", vec!["[\"1\"]"; 500].join(","));
    assert!(matches!(edit("instance", &long), Err(ReadError::TooLarge { found: 500, .. })));
    let text = " ".repeat(LARGEST_TEXT + 1);
    assert!(matches!(Certificate::from_json(&text), Err(ReadError::TooLarge { .. })));
    // A struct that was not read from a file is checked, too.
    let mut odd = Certificate::from_json(&good).unwrap();
    odd.centre.shape = [usize::MAX, 2, 1];
    assert!(matches!(verify(&odd), Err(ProofError::Read(ReadError::Shape { .. }))));
    odd.instance.shape = odd.centre.shape;
    assert!(matches!(verify(&odd), Err(ProofError::Read(ReadError::TooLarge { .. }))));
}

#[test]
fn all_texts_of_a_certificate_are_short_numbers() {
    let certificate = Instance::rank_two().certify().unwrap();
    let texts = certificate.instance.values.iter().chain(&certificate.centre.values);
    for text in texts {
        assert!(text.len() <= number::LONGEST && parse(text).is_ok());
    }
    assert!(parse(&certificate.gradient_upper).unwrap().is_positive());
}
