//! The page in a browser: a script appended to a copy of it works its switches and writes down
//! what it sees, the browser prints the page that results.

use super::tests::fixture;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Works everything that the page's own script offers. Results end up in `data-seen`.
const DRIVE: &str = r##"
const seen = {};
const figure = document.querySelector(".figure"), plots = figure.querySelector(".plots");
const tip = figure.querySelector(".tip");
const svg = figure.querySelector(".variant:not([hidden]) svg"), box = svg.getBoundingClientRect();
const move = (share) => plots.dispatchEvent(new PointerEvent("pointermove",
  { clientX: box.left + share * box.width, clientY: box.top + 60, bubbles: true }));
seen.width = box.width > 200;
move(0.95);
seen.hover = tip.textContent;
seen.cursors = figure.querySelectorAll(".cursor circle").length;
figure.querySelectorAll(".switch")[1].click();
move(0.95);
seen.switched = tip.textContent;
seen.invisible = getComputedStyle(figure.querySelectorAll('.variant [data-series="1"]')[0]).display;
figure.querySelectorAll(".switch")[1].click();
plots.dispatchEvent(new KeyboardEvent("keydown", { key: "Home", bubbles: true }));
seen.keyboard = figure.querySelector(".said").textContent;
const shown = () => figure.querySelector(".variant:not([hidden])").dataset.scales;
seen.scales = [shown()];
figure.querySelector('.scale[data-axis="y"]').click();
seen.scales.push(shown());
const tables = document.querySelector(".tables"), select = tables.querySelector("select");
const open = () => Array.from(tables.querySelectorAll(".wide")).filter((t) => !t.hidden)
  .map((t) => t.dataset.measure);
seen.tables = [open()];
select.selectedIndex = 1;
select.dispatchEvent(new Event("change"));
seen.tables.push(open());
select.selectedIndex = 0;
select.dispatchEvent(new Event("change"));
const table = tables.querySelector("table");
const mean = Array.from(table.querySelectorAll("th")).findIndex((th) => th.textContent === "mean");
const means = () => Array.from(table.tBodies[0].rows, (row) => Number(row.cells[mean].dataset.value));
table.querySelectorAll(".sort")[mean].click();
seen.ascending = means();
table.querySelectorAll(".sort")[mean].click();
seen.descending = means();
seen.requests = performance.getEntriesByType("resource").map((entry) => entry.name);
seen.wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
document.documentElement.dataset.seen = JSON.stringify(seen);
"##;

fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"].iter().find_map(
        |name| {
            std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
        },
    )
}

/// The page after its scripts ran, and what the browser wrote on stderr.
fn open(browser: &Path, page: &Path, width: u32) -> (String, String) {
    let root = page.parent().unwrap();
    let (dom, log) = (root.join(format!("dom{width}.html")), root.join(format!("log{width}.txt")));
    let mut child = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"])
        .args([
            "--disable-background-networking",
            "--disable-dev-shm-usage",
            "--enable-logging=stderr",
        ])
        .arg(format!("--user-data-dir={}", root.join("profile").display()))
        .arg(format!("--window-size={width},1000"))
        .arg("--dump-dom")
        .arg(format!("file://{}", page.display()))
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&dom).unwrap())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    // A browser that hangs must not hang the tests; nothing is measured.
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(120) {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the browser did not end: {}", std::fs::read_to_string(log).unwrap());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    (
        std::fs::read_to_string(dom).unwrap(),
        String::from_utf8_lossy(&std::fs::read(log).unwrap()).into_owned(),
    )
}

/// What the driving script wrote down.
fn seen(dom: &str) -> serde_json::Value {
    let start = dom.find("data-seen=\"").expect("the driving script did not end") + 11;
    let text = &dom[start..start + dom[start..].find('"').unwrap()];
    serde_json::from_str(&text.replace("&quot;", "\"").replace("&amp;", "&")).unwrap()
}

#[test]
fn the_page_works_in_a_browser() {
    let Some(browser) = browser() else {
        eprintln!("skipped: no Chromium in PATH");
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let page = super::render(&[fixture(root.path(), "two")]).unwrap();
    let driven = root.path().join("page.html");
    std::fs::write(&driven, page.replace("</body>", &format!("<script>{DRIVE}</script></body>")))
        .unwrap();
    for width in [1200, 500] {
        let (dom, log) = open(&browser, &driven, width);
        assert!(!log.contains("CONSOLE"), "the console is not empty: {log}");
        let seen = seen(&dom);
        assert_eq!(seen["width"], true);
        let hover = seen["hover"].as_str().unwrap();
        for value in ["Samples: 100", "plain", "8.025", "8 to 8.063", "meta", "1.016"] {
            assert!(hover.contains(value), "{value} is not in {hover}");
        }
        assert_eq!(seen["cursors"], 2);
        let switched = seen["switched"].as_str().unwrap();
        assert!(switched.contains("plain") && !switched.contains("meta"), "{switched}");
        assert_eq!(seen["invisible"], "none");
        let keyboard = seen["keyboard"].as_str().unwrap();
        assert!(keyboard.starts_with("Samples: 10; plain: 8.25"), "{keyboard}");
        assert_eq!(seen["scales"], serde_json::json!(["log log", "log linear"]));
        assert_eq!(seen["tables"], serde_json::json!([["error"], ["seconds"]]));
        let numbers = |key: &str| -> Vec<f64> {
            seen[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
        };
        let mut up = numbers("ascending");
        assert!(up.len() == 4 && up.is_sorted(), "{up:?}");
        up.reverse();
        assert_eq!(numbers("descending"), up);
        assert_eq!(seen["requests"], serde_json::json!([]));
        assert_eq!(seen["wide"], false, "the page scrolls sideways at {width} px");
    }
    // Negative control: an error in a script is seen in the log.
    std::fs::write(&driven, page.replace("</body>", "<script>missing.call()</script></body>"))
        .unwrap();
    assert!(open(&browser, &driven, 1200).1.contains("CONSOLE"));
}
