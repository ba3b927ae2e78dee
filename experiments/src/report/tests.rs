use super::*;
use crate::figures::{Axis, Figure, Series};
use serde_json::json;

/// A small run folder, written by hand.
pub(super) fn fixture(parent: &Path, name: &str) -> PathBuf {
    let folder = parent.join(name);
    std::fs::create_dir_all(folder.join("figures")).unwrap();
    let put = |file: &str, text: String| std::fs::write(folder.join(file), text).unwrap();
    let run = json!({
        "study": {
            "suite": "toy", "name": name, "title": "Two methods", "question": "Which errs less?",
            "swept": ["samples"], "keys": ["suite", "samples", "seed", "method"],
            "measures": ["error"],
        },
        "status": "complete", "revision": "r3v1510n", "cpu": "a processor", "seeds": "0..6",
        "versions": {"peftml": "0.1.0"}, "command": "peftml run toy/two",
        "trials": {"total": 24, "finished": 24},
        "failed": [], "refused": [{"trial": "samples=10 seed=5 meta", "reason": "rank mismatch"}],
    });
    put("run.json", run.to_string());
    let answer = "Meta errs 7.25 times less.";
    put("summary.json", json!({"answer": answer, "figures": {"ratio": 7.25}}).to_string());
    put("config.toml", "suite = \"toy\"\nnoise_std = 0.0625\n".to_owned());
    let mut trials = "suite,samples,seed,method,error,status\n".to_owned();
    let mut timings = "suite,samples,seed,method,seconds\n".to_owned();
    for samples in [10, 100] {
        for (method, size) in [("plain", 8.0), ("meta", 1.0)] {
            for seed in 0..6 {
                let error = size + f64::from(seed) / f64::from(samples);
                trials += &if (samples, method, seed) == (10, "meta", 5) {
                    format!("toy,{samples},{seed},{method},,rank mismatch\n")
                } else {
                    format!("toy,{samples},{seed},{method},{error:?},ok\n")
                };
                timings += &format!("toy,{samples},{seed},{method},0.25\n");
            }
        }
    }
    put("trials.csv", trials);
    put("timings.csv", timings);
    put(
        "verdicts.jsonl",
        json!({"id": "C1", "statement": "Minimisers agree.", "verdict": "proved", "bound": 0.375})
            .to_string(),
    );
    let x = vec![10.0, 100.0];
    let figure = Figure {
        name: "error".to_owned(),
        title: "Error against samples".to_owned(),
        x: Axis::log("Samples"),
        y: Axis::log("Error"),
        series: vec![
            Series::line("plain", 0, x.clone(), vec![8.25, 8.025])
                .with_interval(vec![8.0, 8.0], vec![8.5, 8.0625]),
            Series::line("meta", 1, x, vec![1.1875, 1.015625]),
        ],
        description: "Mean over six seeds.".to_owned(),
    };
    put("figures/error.svg", figure.to_svg().unwrap());
    folder
}

fn page(folder: &Path) -> String {
    render(&[folder.to_owned()]).unwrap()
}

fn edit(folder: &Path, file: &str, change: impl Fn(&str) -> String) {
    let path = folder.join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    let changed = change(&text);
    assert_ne!(text, changed, "the edit of {file} found nothing to change");
    std::fs::write(path, changed).unwrap();
}

#[test]
fn the_page_shows_what_the_folder_holds() {
    let root = tempfile::tempdir().unwrap();
    let page = page(&fixture(root.path(), "two"));
    for expected in [
        "<h1>Two methods</h1>",
        "Which errs less?",
        "Meta errs 7.25 times less.",
        "<dd><data value=\"7.25\">7.25</data></dd>",
        "<h4>Error against samples</h4>",
        "Mean over six seeds.",
        "noise_std = 0.0625",
        "r3v1510n",
        "<code>peftml run toy/two</code>",
        "proved",
        "0.375",
        "1 trial refused by a method; the first is samples=10 seed=5 meta: rank mismatch.",
    ] {
        assert!(page.contains(expected), "{expected} is not on the page");
    }
    // Mean of 8, 8.1, .., 8.5 and of six quarters of a second.
    assert!(page.contains("data-value=\"8.25\">8.250</td>"));
    assert!(page.contains("data-value=\"0.25\">0.2500</td>"));
    assert!(page.contains("<abbr title=\"rank mismatch\">(1 refused)</abbr>"));
}

#[test]
fn every_file_reaches_the_page() {
    type Change = fn(&str) -> String;
    let changes: [(&str, Change, &str); 9] = [
        ("trials.csv", |t| t.replace("8.5,ok", "9.1,ok"), "data-value=\"9.1\">9.100</td>"),
        ("timings.csv", |t| t.replace("0.25", "0.75"), "data-value=\"0.75\">0.7500</td>"),
        ("summary.json", |t| t.replace("errs 7.25", "errs 6.5"), "Meta errs 6.5 times less."),
        (
            "summary.json",
            |t| t.replace("\"ratio\":7.25", "\"ratio\":6.5"),
            "<dd><data value=\"6.5\">6.5</data></dd>",
        ),
        ("run.json", |t| t.replace("r3v1510n", "0ther"), "<dd>0ther</dd>"),
        ("run.json", |t| t.replace("Which errs less?", "Which is it?"), "Which is it?"),
        ("config.toml", |t| t.replace("0.0625", "0.125"), "noise_std = 0.125"),
        ("verdicts.jsonl", |t| t.replace("0.375", "0.875"), "<data value=\"0.875\">"),
        ("figures/error.svg", |t| t.replace("1.1875", "1.4375"), "<td>1.438</td>"),
    ];
    for (file, change, expected) in changes {
        let root = tempfile::tempdir().unwrap();
        let folder = fixture(root.path(), "two");
        assert!(!page(&folder).contains(expected), "{expected} is there before {file} is changed");
        edit(&folder, file, change);
        assert!(page(&folder).contains(expected), "a change of {file} does not reach the page");
    }
}

#[test]
fn an_edited_drawing_is_told() {
    let root = tempfile::tempdir().unwrap();
    let folder = fixture(root.path(), "two");
    assert!(!page(&folder).contains("Not what the data inside draw"));
    edit(&folder, "figures/error.svg", |text| text.replace(">Samples<", ">Apples<"));
    assert!(page(&folder).contains("or it was edited: error.svg. Shown"));
}

#[test]
fn nothing_of_a_file_becomes_markup() {
    let root = tempfile::tempdir().unwrap();
    let folder = fixture(root.path(), "two");
    let hostile = "</script><script>alert(1)</script><img src=x onerror='alert(2)'>\"'&";
    let quoted = serde_json::to_string(hostile).unwrap();
    let inner = &quoted[1..quoted.len() - 1];
    for key in ["Two methods", "Which errs less?", "complete", "a processor", "rank mismatch"] {
        edit(&folder, "run.json", |text| text.replace(key, inner));
    }
    edit(&folder, "run.json", |text| text.replace("\"error\"]", &format!("\"error\",{quoted}]")));
    edit(&folder, "summary.json", |text| text.replace("Meta", inner));
    edit(&folder, "summary.json", |text| text.replace("ratio", inner));
    edit(&folder, "verdicts.jsonl", |text| text.replace("bound", inner));
    edit(&folder, "config.toml", |text| format!("# {hostile}\n{text}"));
    let cell = format!("\"{}\"", hostile.replace('"', "\"\""));
    edit(&folder, "trials.csv", |text| text.replace("meta", &cell).replace("rank mismatch", &cell));
    let figure = Figure {
        name: hostile.to_owned(),
        title: hostile.to_owned(),
        x: Axis::linear(hostile),
        y: Axis::linear(hostile),
        series: vec![Series::line(hostile, 0, vec![1.0], vec![1.0])],
        description: hostile.to_owned(),
    };
    std::fs::write(folder.join("figures/error.svg"), figure.to_svg().unwrap()).unwrap();
    let page = page(&folder);
    assert!(!page.contains("<script>alert") && !page.contains("<img"));
    // Two scripts of ours a page and figure: the data and the code.
    assert_eq!(page.matches("<script").count(), 2);
    assert_eq!(page.matches("</script").count(), 2);
    assert!(page.matches("&lt;script&gt;alert(1)").count() > 10);
}

#[test]
fn damaged_folders_leave_a_note_and_never_a_panic() {
    let files =
        ["run.json", "summary.json", "config.toml", "trials.csv", "timings.csv", "verdicts.jsonl"];
    for file in files.into_iter().chain(["figures/error.svg"]) {
        let root = tempfile::tempdir().unwrap();
        let folder = fixture(root.path(), "two");
        let whole = std::fs::read(folder.join(file)).unwrap();
        let sound = page(&folder);
        // Bytes that no text has.
        std::fs::write(folder.join(file), [0xff, 0xfe, 0x00]).unwrap();
        let damaged = page(&folder);
        assert!(damaged.contains("class=\"note\""), "{file}");
        assert!(damaged.contains(file) && damaged != sound, "{file} is not named");
        // Every length and a flip of every kind of bit, at a stride that keeps the test short.
        let stride = whole.len() / 20 + 1;
        for end in (0..whole.len()).step_by(stride) {
            std::fs::write(folder.join(file), &whole[..end]).unwrap();
            page(&folder);
            let mut flipped = whole.clone();
            flipped[end] ^= 1 << (end % 8);
            std::fs::write(folder.join(file), flipped).unwrap();
            page(&folder);
        }
        if file != "run.json" {
            std::fs::remove_file(folder.join(file)).unwrap();
            page(&folder);
        }
    }
}

#[test]
fn deep_and_wrongly_typed_json_is_a_note() {
    let root = tempfile::tempdir().unwrap();
    let folder = fixture(root.path(), "two");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for text in
        [deep.as_str(), "[]", "7", "null", "{\"study\":7}", "{\"study\":{\"swept\":[1,{}]}}"]
    {
        std::fs::write(folder.join("run.json"), text).unwrap();
        page(&folder);
        std::fs::write(folder.join("summary.json"), text).unwrap();
        page(&folder);
    }
}

#[test]
fn a_folder_that_is_no_run_is_refused_and_the_old_page_stays() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("report.html");
    std::fs::write(&out, "old").unwrap();
    let refused = write(&[root.path().join("absent")], &out);
    assert!(matches!(refused, Err(ReportError::NotARun { .. })));
    assert!(matches!(write(&[], &out), Err(ReportError::NoRuns)));
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "old");
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1, "a temporary file was left");
    let folder = fixture(root.path(), "two");
    write(std::slice::from_ref(&folder), &out).unwrap();
    assert_eq!(std::fs::read_to_string(&out).unwrap(), page(&folder));
}

#[test]
fn a_folder_of_verdicts_alone_is_shown_without_complaint() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("claims");
    std::fs::create_dir(&folder).unwrap();
    assert!(matches!(render(std::slice::from_ref(&folder)), Err(ReportError::NotARun { .. })));
    let line = json!({"id": "C1", "statement": "Minimisers agree.", "verdict": "proved"});
    std::fs::write(folder.join("verdicts.jsonl"), line.to_string()).unwrap();
    let page = page(&folder);
    assert!(page.contains("Minimisers agree."));
    assert!(!page.contains("is missing."));
}

#[test]
fn the_page_names_no_address_and_is_small() {
    let root = tempfile::tempdir().unwrap();
    let runs: Vec<PathBuf> = (0..5).map(|i| fixture(root.path(), &format!("study{i}"))).collect();
    let page = render(&runs).unwrap();
    for address in ["http:", "https:", "//cdn", " src=", "url(", "@import", "<iframe", "<object"] {
        assert!(!page.contains(address), "{address}");
    }
    assert!(page.contains("default-src 'none'"));
    assert!(page.len() < 400_000, "{} bytes", page.len());
    // The index and the comparison name each run.
    assert!(page.contains("<h1>5 studies</h1>"));
    for i in 1..=5 {
        assert_eq!(page.matches(&format!("href=\"#study-{i}\"")).count(), 2);
        assert_eq!(page.matches(&format!("id=\"study-{i}\"")).count(), 1);
    }
}
