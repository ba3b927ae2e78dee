use super::*;
use peftml_linalg::Seed;

const SMALL: &str = "1 your persona: i fish.\n2 your persona: a cat lives here.\n\
3 hello\thi there\t\tno|hi there|maybe\n4 how are you\tfine\t\tfine|no|well\n\
1 your persona: i sing.\n2 hey\tyes\t\ta|b|yes\n";

fn parsed(text: &str) -> Result<Vec<Dialogue>, DialogueProblem> {
    parse(text.as_bytes())
}

fn line_problem(text: &str) -> (usize, LineProblem) {
    match parsed(text) {
        Err(DialogueProblem::Line { line, problem }) => (line, problem),
        other => panic!("{other:?}"),
    }
}

#[test]
fn dialogues_are_read_and_their_history_is_joined() {
    let dialogues = parsed(SMALL).unwrap();
    assert_eq!(dialogues.len(), 2);
    assert_eq!(dialogues[0].persona, ["i fish.", "a cat lives here."]);
    assert_eq!(dialogues[0].turns[0].answer, 1);
    assert_eq!(dialogues[0].history(0), "hello");
    assert_eq!(dialogues[0].history(1), "hellohi therehow are you");
    assert_eq!((dialogues[1].line, dialogues[1].turns[0].reply()), (5, "yes"));
    // Windows line ends are none of the text.
    assert_eq!(parsed(&SMALL.replace('\n', "\r\n")).unwrap()[1], dialogues[1]);
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let with = |from: &str, to: &str| line_problem(&SMALL.replacen(from, to, 1));
    assert_eq!(with("\tfine\t\t", " fine "), (4, LineProblem::Fields { found: 1 }));
    assert_eq!(with("\t\tfine|no|well", ""), (4, LineProblem::Fields { found: 2 }));
    assert_eq!(with("fine|no|well", ""), (4, LineProblem::FewCandidates { found: 0 }));
    assert_eq!(
        with("fine|no|well", "fine|no"),
        (4, LineProblem::Candidates { expected: 3, found: 2 })
    );
    assert_eq!(with("fine|no|well", "x|no|well"), (4, LineProblem::Answer { found: 0 }));
    assert_eq!(with("fine|no|well", "fine|fine|well"), (4, LineProblem::Answer { found: 2 }));
    assert_eq!(with("4 how", "5 how"), (4, LineProblem::Number { expected: 4, found: 5 }));
    assert_eq!(with("4 how", "+4 how"), (4, LineProblem::NoNumber));
    assert_eq!(with("4 how are you", "how"), (4, LineProblem::NoNumber));
    assert_eq!(with("4 how", "4 your persona: late\n5 how"), (4, LineProblem::LatePersona));
    assert_eq!(with("2 your", "2 partner's persona: x\n3 your"), (2, LineProblem::Partner));
    assert_eq!(with("hi there\t\t", "hi there\t1\t"), (3, LineProblem::Third));
    assert_eq!(with("2 hey\tyes\t\ta|b|yes\n", ""), (5, LineProblem::NoTurn));
    assert_eq!(line_problem("2 a\tb\t\ta|b"), (1, LineProblem::Number { expected: 1, found: 2 }));
    let mut bytes = SMALL.as_bytes().to_vec();
    bytes[5] = 0xff;
    let error = parse(bytes.as_slice()).unwrap_err();
    assert!(error.to_string().contains("line 1: is no UTF-8 at byte 5"), "{error}");
    assert!(matches!(parsed(""), Err(DialogueProblem::Empty)));
}

/// A reader of one endless line: what is asked for is counted.
struct Endless(usize);

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        buffer.fill(b'1');
        self.0 += buffer.len();
        Ok(buffer.len())
    }
}

#[test]
fn a_line_without_end_is_refused_within_bounds() {
    let mut endless = Endless(0);
    let error = parse(BufReader::new(&mut endless)).unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
    // The limit and one buffer of the reader's.
    assert!(endless.0 <= LONGEST_LINE + (1 << 17), "{}", endless.0);
}

#[test]
fn ten_thousand_corrupted_files_are_answered_without_a_panic() {
    let mut stream = Seed::root(1).child("corrupt").stream();
    let (mut refused, mut read) = (0, 0);
    for _ in 0..10_000 {
        let mut bytes = SMALL.as_bytes().to_vec();
        for _ in 0..1 + stream.below(3) {
            let at = stream.below(bytes.len() as u64) as usize;
            match stream.below(3) {
                0 => bytes[at] = stream.below(256) as u8,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"\t|\n 1\xff"[stream.below(6) as usize]),
            }
        }
        match parse(bytes.as_slice()) {
            Ok(dialogues) => {
                read += 1;
                assert!(
                    dialogues.iter().all(|d| !d.turns.is_empty() && !d.history(0).is_empty()
                        || d.history(0).is_empty())
                );
            }
            Err(_) => refused += 1,
        }
    }
    // A changed letter is no damage to the format; a changed number or tab is.
    assert!(read > 1_000 && refused > 1_000, "{read} {refused}");
}

#[test]
fn clusters_are_ordered_by_their_turns_and_unknown_personas_are_named() {
    let dialogues = parsed(SMALL).unwrap();
    let map = |text: &str| PersonaMap::parse(text.as_bytes());
    let good = r#"{"7": [["a cat lives here", "i fish"]], "0": [["i sing"]]}"#;
    let (tasks, left_out) = map(good).unwrap().tasks(&dialogues).unwrap();
    assert_eq!(tasks.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["7", "0"]);
    assert_eq!((tasks[0].turns, &tasks[0].dialogues[..], left_out), (2, &[0][..], 0));
    // A persona that the map has not is left out and counted; one that no dialogue has is an error.
    let (tasks, left_out) = map(r#"{"0": [["i sing"]]}"#).unwrap().tasks(&dialogues).unwrap();
    assert_eq!((tasks.len(), left_out), (1, 1));
    let error = map(r#"{"0": [["i sing"], ["i row"]]}"#).unwrap().tasks(&dialogues).unwrap_err();
    assert!(error.to_string().contains("\"i row\""), "{error}");
    let twice = map(r#"{"0": [["i sing"]], "1": [["i sing"]]}"#).unwrap_err();
    assert!(matches!(twice, DialogueProblem::Twice { .. }));
    for text in ["", "[]", r#"{"0": 1}"#, r#"{"0": [["a", 1]]}"#] {
        assert!(matches!(map(text), Err(DialogueProblem::Map(_))), "{text}");
    }
    let by_persona = tasks_by_persona(&dialogues);
    assert_eq!(by_persona[0].name, "a cat lives here. i fish");
}

#[test]
fn ten_thousand_corrupted_maps_are_answered_without_a_panic() {
    let good = r#"{"7": [["a cat lives here", "i fish"]], "0": [["i sing"]]}"#.as_bytes();
    let dialogues = parsed(SMALL).unwrap();
    let mut stream = Seed::root(2).child("corrupt").stream();
    let mut refused = 0;
    for _ in 0..10_000 {
        let mut bytes = good.to_vec();
        let at = stream.below(bytes.len() as u64) as usize;
        bytes[at] = stream.below(256) as u8;
        let read = PersonaMap::parse(&bytes).and_then(|map| map.tasks(&dialogues));
        refused += usize::from(read.is_err());
    }
    assert!(refused > 5_000, "{refused}");
}

/// The real files, where they are named by PEFTML_DATA.
#[test]
fn the_official_validation_file_has_its_dialogues_and_clusters() {
    let Some(folder) = std::env::var_os("PEFTML_DATA") else { return };
    let folder = Path::new(&folder).join("convai2");
    let dialogues = read(&folder.join("valid_self_original.txt")).unwrap();
    let turns: usize = dialogues.iter().map(|dialogue| dialogue.turns.len()).sum();
    assert_eq!((dialogues.len(), turns), (1_000, 7_801));
    assert!(dialogues.iter().all(|d| d.turns.iter().all(|turn| turn.candidates.len() == 20)));
    let map = PersonaMap::read(&folder.join("valid_persona_map.json")).unwrap();
    let (tasks, left_out) = map.tasks(&dialogues).unwrap();
    // The ten largest clusters have 189 to 101 turns, cluster 0 among them.
    assert_eq!(
        (tasks[0].name.as_str(), tasks[0].turns, tasks[9].turns, left_out),
        ("0", 189, 101, 0)
    );
}
