use super::*;
use crate::models::EncoderForm;
use crate::{Input, Pass, device::values};
use serde_json::json;

fn config(family: Family, classes: usize) -> EncoderConfig {
    let padding = usize::from(family == Family::Roberta);
    EncoderConfig {
        vocabulary: 11,
        width: 4,
        layers: 2,
        heads: 2,
        hidden: 6,
        positions: 9,
        segments: 2,
        classes,
        dropout: 0.1,
        form: EncoderForm {
            family,
            padding,
            norm_epsilon: 1e-5,
            attention_dropout: Some(0.1),
            head_dropout: None,
            pooler: family == Family::Bert,
        },
    }
}

fn place() -> Place {
    Place::cpu(Precision::F32)
}

/// A small encoder, saved.
fn saved(folder: &Path, family: Family, classes: usize) -> Pretrained {
    let encoder = Encoder::new(config(family, classes)).unwrap();
    let base = encoder.sites().initial(&Seed::root(1), &place()).unwrap();
    let description = json!({
        "model_type": family.name(), "vocab_size": 11, "hidden_size": 4, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 6, "max_position_embeddings": 9,
        "type_vocab_size": 2, "layer_norm_eps": 1e-5, "hidden_act": "gelu",
        "pad_token_id": encoder.config().form.padding,
    });
    let description = description.as_object().unwrap().clone();
    let model = Pretrained { encoder, base, description };
    model.save(folder, &model.base, None).unwrap();
    model
}

fn load(folder: &Path) -> Result<Pretrained, PeftError> {
    Pretrained::load(folder, &Head::Own, &place())
}

fn refusal(folder: &Path) -> String {
    load(folder).err().expect("a refusal").to_string()
}

#[test]
fn a_folder_that_is_written_is_read_again() {
    let root = tempfile::tempdir().unwrap();
    for (number, (family, classes)) in
        [(Family::Bert, 3), (Family::Bert, 0), (Family::Roberta, 2), (Family::Roberta, 0)]
            .into_iter()
            .enumerate()
    {
        let folder = root.path().join(number.to_string());
        let model = saved(&folder, family, classes);
        let read = load(&folder).unwrap();
        assert_eq!(read.encoder.config(), model.encoder.config());
        assert!(read.base.same_bits(&model.base).unwrap());
        // A bare network's keys do not carry the family's name, those below a head do.
        let keys =
            crate::store::Contents::read(&folder.join(WEIGHTS_FILE)).unwrap().keys().unwrap();
        assert_eq!(keys.iter().any(|key| key.starts_with(family.name())), classes > 0);
        // Nothing is written over what is there.
        assert!(model.save(&folder, &model.base, None).is_err());
    }
}

#[test]
fn a_new_head_takes_the_place_of_the_old_one_and_nothing_else_moves() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("bert");
    let model = saved(&folder, Family::Bert, 3);
    let with = |head: Head| Pretrained::load(&folder, &head, &place()).unwrap();
    let seed = Seed::root(7);
    let fitting = with(Head::Fitting(3, seed.clone()));
    assert!(fitting.base.same_bits(&model.base).unwrap());
    let new = with(Head::New(3, seed.clone()));
    let other = with(Head::Fitting(5, seed));
    assert_eq!(other.encoder.config().classes, 5);
    for (name, _) in model.base.iter() {
        let same = new.base.values(name).unwrap() == model.base.values(name).unwrap();
        // Biases of a head start at zero in both.
        assert_eq!(same, name != "classifier.weight", "{name}");
    }
}

#[test]
fn shards_are_read_as_one_file_is() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("model");
    let model = saved(&folder, Family::Roberta, 2);
    std::fs::remove_file(folder.join(WEIGHTS_FILE)).unwrap();
    let mut map = serde_json::Map::new();
    for (number, part) in ["a.safetensors", "b.safetensors"].into_iter().enumerate() {
        let own = model.base.iter().enumerate().filter(|(i, _)| i % 2 == number);
        let own: Parameters = own.map(|(_, (name, p))| (name.to_owned(), p.clone())).collect();
        map.extend(own.iter().map(|(name, _)| (name.to_owned(), json!(part))));
        crate::store::save_parameters(&folder.join(part), &own, Precision::F32).unwrap();
    }
    let index = folder.join("model.safetensors.index.json");
    let write = |map: serde_json::Value| {
        std::fs::write(&index, json!({"weight_map": map}).to_string()).unwrap();
    };
    write(map.clone().into());
    assert!(load(&folder).unwrap().base.same_bits(&model.base).unwrap());
    // A path that leads out of the folder is none.
    map.insert("x".into(), json!("../a.safetensors"));
    write(map.into());
    assert!(refusal(&folder).contains("no name of a file"));
    std::fs::remove_file(folder.join("b.safetensors")).unwrap();
    write(json!({"x": "a.safetensors"}));
    assert!(refusal(&folder).contains("missing"));
}

#[test]
fn what_is_wrong_with_a_folder_is_said_in_one_sentence() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("model");
    saved(&folder, Family::Bert, 3);
    let path = folder.join(CONFIG_FILE);
    let good: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let with = |key: &str, value: serde_json::Value| {
        let mut map = good.clone();
        map[key] = value;
        std::fs::write(&path, map.to_string()).unwrap();
        refusal(&folder)
    };
    let other = with("model_type", json!("gpt2"));
    assert!(other.contains("\"gpt2\"") && other.contains("RobertaForSequenceClassification"));
    let other = with("architectures", json!(["BertForTokenClassification"]));
    assert!(other.contains("\"BertForTokenClassification\""), "{other}");
    assert!(with("hidden_act", json!("relu")).contains("only \"gelu\""));
    assert!(with("hidden_size", json!(1u64 << 60)).contains("hidden_size"));
    assert!(with("num_hidden_layers", json!(1u64 << 40)).contains("num_hidden_layers"));
    assert!(with("hidden_size", json!("four")).contains("whole number"));
    let shape = with("intermediate_size", json!(7));
    assert!(shape.contains("expected shape [7]") && shape.contains("found [6]"), "{shape}");
    assert!(with("num_hidden_layers", json!(3)).contains("layer.2"));
    assert!(with("num_hidden_layers", json!(1)).contains("nothing asks for"));
    std::fs::write(&path, good.to_string()).unwrap();
    assert!(load(&folder).is_ok(), "the control");
    std::fs::rename(folder.join(WEIGHTS_FILE), folder.join("pytorch_model.bin")).unwrap();
    assert!(refusal(&folder).contains("save_pretrained"));
    std::fs::remove_file(folder.join("pytorch_model.bin")).unwrap();
    assert!(refusal(&folder).contains(WEIGHTS_FILE));
}

/// Outputs for one sequence.
fn outputs(model: &Pretrained, ids: &[i64], mask: &[f64]) -> Vec<f64> {
    let shape = [1, ids.len()];
    let tokens = model.tokens(ids.to_vec(), mask.to_vec(), None, shape, &place()).unwrap();
    let (states, _) = model.encoder.states(&Pass::new(&model.base), &tokens).unwrap();
    values(&states.narrow(1, ids.len() - 2, 2)).unwrap()
}

#[test]
fn robertas_positions_count_tokens_and_berts_count_places() {
    let root = tempfile::tempdir().unwrap();
    for (family, padding, alike) in [(Family::Roberta, 1, true), (Family::Bert, 0, false)] {
        let model = saved(&root.path().join(family.name()), family, 0);
        let short = outputs(&model, &[5, 6], &[1.0, 1.0]);
        let padded = outputs(&model, &[padding, padding, 5, 6], &[0.0, 0.0, 1.0, 1.0]);
        let gap = short.iter().zip(&padded).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        // Numbers of order 1 in single precision, some hundred operations; positions differ by 0.02
        // relative to words of the same size.
        assert_eq!(gap < 1e-4, alike, "{gap}");
    }
}

#[test]
fn numbers_that_are_no_tokens_and_sequences_too_long_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let model = saved(&root.path().join("model"), Family::Roberta, 2);
    let tokens = |ids: Vec<i64>| {
        let count = ids.len();
        model.tokens(ids, vec![1.0; count], None, [1, count], &place())
    };
    assert!(tokens(vec![11]).is_err() && tokens(vec![-1]).is_err());
    assert!(model.tokens(vec![1], vec![0.5], None, [1, 1], &place()).is_err());
    let forward = |count: usize| {
        let input = Input::Tokens(Box::new(tokens(vec![3; count]).unwrap()));
        model.encoder.forward(&Pass::new(&model.base), &input)
    };
    // Nine positions, of which RoBERTa's tokens use those from padding + 1 = 2 on.
    assert!(forward(7).is_ok());
    let error = forward(8).unwrap_err().to_string();
    assert!(error.contains("at most 7"), "{error}");
}

/// `bytes` with one to three of them changed, perhaps cut.
fn damaged(bytes: &[u8], stream: &mut peftml_linalg::Stream) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + stream.below(3) {
        let at = stream.below(bytes.len() as u64) as usize;
        bytes[at] = match stream.below(2) {
            0 => stream.below(256) as u8,
            _ => b"0123456789{}[]\",:-"[stream.below(18) as usize],
        };
    }
    if stream.below(4) == 0 {
        bytes.truncate(stream.below(bytes.len() as u64) as usize);
    }
    bytes
}

#[test]
fn ten_thousand_corrupted_folders_are_answered_without_a_panic() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("model");
    saved(&folder, Family::Bert, 3);
    let names = [CONFIG_FILE, WEIGHTS_FILE];
    let good = names.map(|name| std::fs::read(folder.join(name)).unwrap());
    let mut stream = Seed::root(2).child("corrupt").stream();
    let mut refused = [0, 0];
    for round in 0..10_000 {
        let which = round % 2;
        // In the weights, damage to the header: numbers are only numbers.
        let reach = if which == 0 { good[0].len() } else { 2_000.min(good[1].len()) };
        let mut bytes = damaged(&good[which][..reach], &mut stream);
        bytes.extend(&good[which][reach..]);
        std::fs::write(folder.join(names[which]), bytes).unwrap();
        refused[which] += usize::from(load(&folder).is_err());
        std::fs::write(folder.join(names[which]), &good[which]).unwrap();
    }
    assert!(load(&folder).is_ok(), "the control");
    assert!(refused.iter().all(|count| (1_000..5_000).contains(count)), "{refused:?}");
}

const WORDS: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\nwor\n##ld\n##s\n,\n!\ncafe\n";

fn word_pieces(folder: &Path) -> Tokenizer {
    std::fs::write(folder.join("vocab.txt"), WORDS).unwrap();
    Tokenizer::from_folder(folder).unwrap()
}

fn byte_pairs(folder: &Path) -> Tokenizer {
    let vocabulary = json!({
        "<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "h": 4, "i": 5, "\u{120}": 6, "hi": 7,
        "\u{120}hi": 8, "<mask>": 9,
    });
    std::fs::write(folder.join("vocab.json"), vocabulary.to_string()).unwrap();
    let merges = "#version: 0.2\nh i\n\u{120} hi\n";
    std::fs::write(folder.join("merges.txt"), merges).unwrap();
    Tokenizer::from_folder(folder).unwrap()
}

#[test]
fn text_is_cut_into_pieces_between_special_tokens() {
    let [first, second] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let bert = word_pieces(first.path());
    // Accents and capitals go; what no piece fits is unknown.
    let encoded = bert.encode("Hello, WORLDS! caf\u{e9} zzz").unwrap();
    assert_eq!(encoded.ids, [2, 5, 9, 6, 7, 8, 10, 11, 1, 3]);
    let pair = bert.encode_pair("hello", "hello !").unwrap();
    assert_eq!(pair.ids, [2, 5, 3, 5, 10, 3]);
    assert_eq!(pair.segments, [0, 0, 0, 1, 1, 1]);
    assert_eq!(bert.encode_plain("hello").unwrap(), [5]);
    assert_eq!(bert.vocabulary(), 12);
    let cut = bert.cut_at(4).unwrap();
    assert_eq!(cut.encode("hello hello hello").unwrap().ids, [2, 5, 5, 3]);
    assert!(cut.encode_pair("hello", "hello").is_ok());
    let cut = cut.cut_at(2).unwrap();
    assert_eq!(cut.encode("hello").unwrap().ids, [2, 3]);
    assert!(cut.encode_pair("hello", "hello").is_err(), "three special tokens do not fit");
    assert!(cut.cut_at(1).is_err());
    let roberta = byte_pairs(second.path());
    assert_eq!(roberta.encode("hi hi").unwrap().ids, [0, 7, 8, 2]);
    assert_eq!(roberta.encode_pair("hi", "hi").unwrap().ids, [0, 7, 2, 2, 7, 2]);
    assert_eq!(roberta.encode("hi<mask>").unwrap().ids, [0, 7, 9, 2]);
}

#[test]
fn what_tokenizer_json_says_of_cutting_and_filling_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let plain = word_pieces(folder.path());
    let mut whole: serde_json::Value = serde_json::from_str(&plain.description().unwrap()).unwrap();
    whole["truncation"] =
        json!({"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0});
    whole["padding"] = json!({"strategy": {"Fixed": 9}, "direction": "Right",
        "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"});
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, whole.to_string()).unwrap();
    let read = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(read.encode("hello hello").unwrap().ids, [2, 5, 5, 3]);
    whole["model"]["type"] = json!("Unigram");
    std::fs::write(&path, whole.to_string()).unwrap();
    let error = Tokenizer::from_folder(folder.path()).err().unwrap().to_string();
    assert!(error.contains("\"Unigram\"") && error.contains("WordPiece"), "{error}");
    std::fs::remove_file(&path).unwrap();
    std::fs::write(folder.path().join("vocab.txt"), "hello\n").unwrap();
    let error = Tokenizer::from_folder(folder.path()).err().unwrap().to_string();
    assert!(error.contains("special token"), "{error}");
    std::fs::remove_file(folder.path().join("vocab.txt")).unwrap();
    let error = Tokenizer::from_folder(folder.path()).err().unwrap().to_string();
    assert!(error.contains("merges.txt"), "{error}");
}

#[test]
fn ten_thousand_corrupted_tokenizers_of_each_kind_are_answered_without_a_panic() {
    let [first, second] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let jsons = [word_pieces(first.path()), byte_pairs(second.path())].map(|tokenizer| {
        let text = tokenizer.description().unwrap();
        text.into_bytes()
    });
    let mut stream = Seed::root(3).child("corrupt").stream();
    let (mut refused, mut read) = (0, 0);
    for round in 0..10_000 {
        let bytes = damaged(&jsons[round % 2], &mut stream);
        match Tokenizer::from_json(&bytes, "tokenizer.json".into()) {
            Err(_) => refused += 1,
            // What reads may still be unable to encode, which is an answer too.
            Ok(tokenizer) => {
                read += 1;
                for text in ["Hello hi \u{e9}!", "", "[CLS] <mask> worlds"] {
                    let _ = tokenizer.encode(text);
                    let _ = tokenizer.encode_pair(text, text);
                }
            }
        }
    }
    assert!(refused > 2_000 && read > 100, "{refused} {read}");
    // The older files, a few at a time: they become the same description.
    let files =
        [(first.path(), "vocab.txt"), (second.path(), "vocab.json"), (second.path(), "merges.txt")];
    for (folder, name) in files {
        let good = std::fs::read(folder.join(name)).unwrap();
        let mut refused = 0;
        for _ in 0..10_000 {
            std::fs::write(folder.join(name), damaged(&good, &mut stream)).unwrap();
            match Tokenizer::from_folder(folder) {
                Ok(tokenizer) => drop(tokenizer.encode("hello hi")),
                Err(_) => refused += 1,
            }
        }
        std::fs::write(folder.join(name), good).unwrap();
        assert!(refused > 500, "{name}: {refused}");
    }
}
