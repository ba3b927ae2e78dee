use super::*;
use crate::methods::registry;
use crate::models::{Encoder, EncoderConfig, EncoderForm, Family};
use crate::{Network as _, Parameter};
use peftml_linalg::Seed;

fn encoder(family: Family, classes: usize) -> Encoder {
    let (padding, pooler) = match family {
        Family::Bert => (0, true),
        Family::Roberta => (1, false),
    };
    Encoder::new(EncoderConfig {
        vocabulary: 11,
        width: 12,
        layers: 2,
        heads: 2,
        hidden: 8,
        positions: 10,
        segments: 2,
        classes,
        dropout: 0.0,
        form: EncoderForm { family, padding, pooler, ..EncoderForm::default() },
    })
    .unwrap()
}

fn place() -> Place {
    Place::cpu(Precision::F32)
}

/// An adapter with numbers of its own everywhere.
fn adapter(network: &Encoder, config: &AdapterConfig) -> (Adapter, Parameters) {
    let base = network.sites().initial(&Seed::root(1), &place()).unwrap();
    let adapter = Adapter::new(config, network.sites()).unwrap();
    let adapter = adapter.prepared(&base, &Seed::root(2), &place()).unwrap();
    let start = adapter.fresh(&base, &Seed::root(3), &place()).unwrap();
    let drawn = |(name, parameter): (&str, &Parameter)| {
        let mut stream = Seed::root(4).child(name).stream();
        let count = parameter.shape.iter().product();
        let numbers = (0..count).map(|_| stream.normal()).collect();
        let value = place().tensor(numbers, [count]).unwrap();
        (name.to_owned(), Parameter { value, ..parameter.clone() })
    };
    let theta = start.iter().map(drawn).collect();
    (adapter, theta)
}

/// Every method of the format with each of its examples, with a head beside it where there is one.
fn cases(classes: usize) -> Vec<AdapterConfig> {
    let mut cases = Vec::new();
    for entry in registry().iter().filter(|entry| entry.hugging_face.is_some()) {
        for settings in entry.examples {
            let mut config = AdapterConfig::new(entry.name).with_settings(settings).unwrap();
            if classes > 0 {
                config.modules_to_save = vec!["classifier".into()];
            }
            cases.push(config);
        }
    }
    cases
}

#[test]
fn what_is_exported_is_imported_bit_by_bit() {
    let root = tempfile::tempdir().unwrap();
    let mut number = 0;
    for (family, classes) in [(Family::Roberta, 3), (Family::Bert, 2), (Family::Bert, 0)] {
        let network = encoder(family, classes);
        for config in cases(classes) {
            let (adapter, theta) = adapter(&network, &config);
            number += 1;
            let folder = root.path().join(number.to_string());
            export_adapter(&folder, &adapter, &theta, network.sites(), None).unwrap();
            let (read, numbers) = load_adapter(&folder, network.sites(), &place()).unwrap();
            let name = config.method.clone();
            assert!(numbers.same_bits(&theta).unwrap(), "{name}");
            assert!(read.constants().same_bits(adapter.constants()).unwrap(), "{name}");
            assert_eq!(read.count(), adapter.count(), "{name}");
            assert_eq!(saved_classes(&folder).unwrap(), (classes > 0).then_some(classes), "{name}");
            // Our own form is read by the same door.
            let own = root.path().join(format!("{number}-own"));
            store::save_new_adapter(&own, &adapter, &theta, Precision::F32).unwrap();
            let (own, numbers) = load_adapter(&own, network.sites(), &place()).unwrap();
            assert_eq!(own.config(), adapter.config());
            assert!(numbers.same_bits(&theta).unwrap(), "{name}");
            // Control: the network of the other family has not these modules.
            let other = match family {
                Family::Roberta => encoder(Family::Bert, classes),
                Family::Bert => encoder(Family::Roberta, classes + 1),
            };
            assert!(
                load_adapter(&folder, other.sites(), &place()).is_err() || classes == 0,
                "{name}"
            );
        }
    }
    assert!(number > 20);
}

#[test]
fn a_method_that_the_format_has_not_is_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    let network = encoder(Family::Bert, 2);
    let mut refused = 0;
    for entry in registry().iter().filter(|entry| entry.hugging_face.is_none()) {
        let config = AdapterConfig::new(entry.name).with_settings(entry.examples[0]).unwrap();
        let (adapter, theta) = adapter(&network, &config);
        let folder = root.path().join(entry.name);
        let error = export_adapter(&folder, &adapter, &theta, network.sites(), None).unwrap_err();
        assert!(error.to_string().contains(entry.name), "{error}");
        assert!(!folder.exists());
        refused += 1;
    }
    assert!(refused > 3);
}

/// A folder in the format of the type LORA, rank 2 on queries and values.
fn exported(root: &Path) -> (Encoder, std::path::PathBuf) {
    let network = encoder(Family::Roberta, 3);
    let entry = registry().iter().find(|e| e.hugging_face.is_some_and(|f| f.peft_type == "LORA"));
    let mut config = AdapterConfig::new(entry.unwrap().name).with_settings("rank = 2").unwrap();
    config.targets = Some(Targets::Names(vec!["query".into(), "value".into()]));
    let (adapter, theta) = adapter(&network, &config);
    let folder = root.join("adapter");
    export_adapter(&folder, &adapter, &theta, network.sites(), None).unwrap();
    (network, folder)
}

#[test]
fn targets_are_resolved_as_peft_does_it() {
    let root = tempfile::tempdir().unwrap();
    let (network, folder) = exported(root.path());
    let path = folder.join(store::ADAPTER_DESCRIPTION);
    let good: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(good["target_modules"], json!(["query", "value"]));
    let with = |changes: Value| {
        let mut map = good.clone();
        map.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        std::fs::write(&path, map.to_string()).unwrap();
        load_adapter(&folder, network.sites(), &place()).map(|(adapter, _)| adapter.count())
    };
    let count = with(json!({})).unwrap();
    let same = [
        json!({"target_modules": r"roberta\.encoder\..*\.(query|value)"}),
        // Python's syntax, which Rust's regular expressions have not.
        json!({"target_modules": r".*attention\.self\.(?!key).*"}),
        json!({"target_modules": "all-linear", "exclude_modules": ["key", "dense"]}),
        json!({"target_modules": ["query", "value", "absent"]}),
        json!({"layers_to_transform": [0, 1], "layers_pattern": "layer"}),
        json!({"rank_pattern": {"absent": 7}}),
    ];
    for changes in same {
        assert_eq!(with(changes.clone()).unwrap(), count, "{changes}");
    }
    let refused = [
        (json!({"target_modules": ["query"]}), "nothing asks for"),
        (json!({"target_modules": ["query", "value", "key"]}), "missing"),
        (json!({"layers_to_transform": 0}), "nothing asks for"),
        (json!({"target_modules": "query"}), "no layer"),
        (json!({"target_modules": "("}), "target_modules"),
        (json!({"rank_pattern": {"query": 1}}), "expected shape"),
        (json!({"bias": "all"}), "bias"),
        (json!({"use_qalora": true}), "use_qalora"),
        (json!({"init_lora_weights": "pissa"}), "init_lora_weights"),
        (json!({"peft_type": "BOFT"}), "LOHA"),
        (json!({"r": "two"}), "r is \"two\""),
        (json!({"r": 1u64 << 62}), "at most 12 fits"),
    ];
    for (changes, word) in refused {
        let error = with(changes.clone()).unwrap_err().to_string();
        assert!(error.contains(word), "{changes}: {error}");
    }
}

#[test]
fn ten_thousand_corrupted_adapters_are_answered_without_a_panic() {
    let root = tempfile::tempdir().unwrap();
    let (network, folder) = exported(root.path());
    let names = [store::ADAPTER_DESCRIPTION, store::ADAPTER_FILE];
    let good = names.map(|name| std::fs::read(folder.join(name)).unwrap());
    let mut stream = Seed::root(5).child("corrupt").stream();
    let mut refused = [0, 0];
    for round in 0..10_000 {
        let which = round % 2;
        let mut bytes = good[which].clone();
        let reach = bytes.len().min(2_000) as u64;
        for _ in 0..1 + stream.below(3) {
            let at = stream.below(reach) as usize;
            bytes[at] = match stream.below(2) {
                0 => stream.below(256) as u8,
                _ => b"0123456789{}[]\",:-"[stream.below(18) as usize],
            };
        }
        std::fs::write(folder.join(names[which]), bytes).unwrap();
        refused[which] += usize::from(load_adapter(&folder, network.sites(), &place()).is_err());
        let _ = saved_classes(&folder);
        let _ = inspect(&folder);
        std::fs::write(folder.join(names[which]), &good[which]).unwrap();
    }
    assert!(load_adapter(&folder, network.sites(), &place()).is_ok(), "the control");
    assert!(refused.iter().all(|count| (1_000..5_000).contains(count)), "{refused:?}");
}
