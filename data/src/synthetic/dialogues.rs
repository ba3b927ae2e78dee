//! Synthetic personas and their dialogues: the embedded stand-in for real ones.
//!
//! Words are `w0`, `w1`, .. A persona has [`DialogueSpec::favourites`] favourite words. An utterance is
//! [`LENGTH`] words; a reply repeats one of them, which is common to all personas, and has favourites of the one
//! who replies with probability [`FAVOURITE`] elsewhere. Candidates are the reply and replies to other utterances
//! by other personas. So what tells the true reply apart is in part shared and in part the persona's own;
//! nothing else of language is claimed.

use crate::convai2::{Dialogue, Turn};
use peftml_linalg::Seed;

/// Words of an utterance and of a reply.
pub const LENGTH: usize = 4;
/// How often a word of a reply is a favourite.
pub const FAVOURITE: f64 = 0.5;

/// What is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialogueSpec {
    /// Number of personas.
    pub personas: usize,
    /// Dialogues of each.
    pub dialogues: usize,
    /// Turns of a dialogue.
    pub turns: usize,
    /// Possible replies of a turn, the true one included; at least 2.
    pub candidates: usize,
    /// Number of words.
    pub words: usize,
    /// Favourite words of a persona.
    pub favourites: usize,
}

impl DialogueSpec {
    /// The dialogues of role `role` (`"training"`, `"test"`), persona by persona; roles have personas of their
    /// own. A persona's only sentence is its name.
    pub fn draw(&self, seed: &Seed, role: &str) -> Vec<Dialogue> {
        let seed = seed.child(role);
        let favourites: Vec<Vec<usize>> = (0..self.personas)
            .map(|p| self.favourites_of(&seed.child("persona").child(p)))
            .collect();
        let mut dialogues = Vec::new();
        for persona in 0..self.personas {
            for number in 0..self.dialogues {
                let seed = seed.child("dialogue").child(persona).child(number);
                let turns = (0..self.turns)
                    .map(|turn| self.turn(persona, &favourites, &seed.child(turn)))
                    .collect();
                let name = format!("i am {role} persona {persona}.");
                dialogues.push(Dialogue { line: 1, persona: vec![name], turns });
            }
        }
        dialogues
    }

    fn favourites_of(&self, seed: &Seed) -> Vec<usize> {
        let mut words: Vec<usize> = (0..self.words).collect();
        seed.stream().shuffle(&mut words);
        words.truncate(self.favourites);
        words
    }

    fn turn(&self, persona: usize, favourites: &[Vec<usize>], seed: &Seed) -> Turn {
        let mut stream = seed.stream();
        let mut utterance =
            || (0..LENGTH).map(|_| stream.below(self.words as u64) as usize).collect::<Vec<_>>();
        let (own, others): (_, Vec<Vec<usize>>) =
            (utterance(), (1..self.candidates).map(|_| utterance()).collect());
        let reply = |words: &[usize], by: usize, number: usize| {
            let mut stream = seed.child("reply").child(number).stream();
            let favourites = &favourites[by];
            let echo = (stream.below(LENGTH as u64), stream.below(LENGTH as u64));
            let word = |place: usize| {
                let chosen = stream.uniform();
                let any = stream.below(self.words as u64) as usize;
                let liked = favourites.get(stream.below(favourites.len().max(1) as u64) as usize);
                match liked {
                    _ if place as u64 == echo.0 => words[echo.1 as usize],
                    Some(&liked) if chosen < FAVOURITE => liked,
                    _ => any,
                }
            };
            (0..LENGTH).map(word).collect::<Vec<_>>()
        };
        let mut candidates = vec![text(&reply(&own, persona, 0))];
        let mut number = 1;
        for other in &others {
            // Another persona's, where there is another; never the same words as one that stands already.
            loop {
                let by = match favourites.len() {
                    1 => 0,
                    count => (persona + 1 + number % (count - 1)) % count,
                };
                let candidate = text(&reply(other, by, number));
                number += 1;
                if !candidates.contains(&candidate) {
                    candidates.push(candidate);
                    break;
                }
            }
        }
        // The true one last, as in the real files.
        candidates.rotate_left(1);
        Turn { utterance: text(&own), answer: candidates.len() - 1, candidates }
    }
}

/// Words with a space before each, so that utterances and replies can be joined without a separator.
fn text(words: &[usize]) -> String {
    words.iter().map(|word| format!(" w{word}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const SPEC: DialogueSpec = DialogueSpec {
        personas: 3,
        dialogues: 20,
        turns: 5,
        candidates: 4,
        words: 50,
        favourites: 4,
    };

    #[test]
    fn dialogues_are_as_many_as_asked_for_and_their_replies_stand_once() {
        let seed = Seed::root(3);
        let dialogues = SPEC.draw(&seed, "training");
        assert_eq!(dialogues.len(), 60);
        assert!(dialogues.iter().all(|dialogue| dialogue.turns.len() == 5));
        for turn in dialogues.iter().flat_map(|dialogue| &dialogue.turns) {
            let distinct: BTreeSet<&String> = turn.candidates.iter().collect();
            assert_eq!((distinct.len(), turn.answer), (4, 3));
        }
        assert_eq!(dialogues, SPEC.draw(&seed, "training"));
        assert_ne!(dialogues, SPEC.draw(&seed, "test"));
        assert_eq!(crate::convai2::tasks_by_persona(&dialogues).len(), 3);
    }

    #[test]
    fn a_true_reply_has_a_word_of_the_utterance_and_the_personas_favourites() {
        let dialogues = SPEC.draw(&Seed::root(4), "training");
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<BTreeSet<_>>();
        let shared = |turn: &Turn, reply: &str| {
            words(&turn.utterance).intersection(&words(reply)).any(|word| !word.is_empty())
        };
        let turns: Vec<&Turn> = dialogues.iter().flat_map(|dialogue| &dialogue.turns).collect();
        assert!(turns.iter().all(|turn| shared(turn, turn.reply())));
        // Control: of the other candidates' sixteen pairs of words few are equal by chance, 1/50 each.
        let others = turns.iter().filter(|turn| shared(turn, &turn.candidates[0])).count();
        assert!(others < turns.len() / 2, "{others}");
        // A persona's four favourites are half of three words in four: more often than any other four words.
        let seed = Seed::root(4).child("training");
        let favourites = SPEC.favourites_of(&seed.child("persona").child(1usize));
        let count = |persona: usize| {
            let own = dialogues[20 * persona..20 * (persona + 1)].iter().flat_map(|d| &d.turns);
            let liked = |word: &&str| favourites.iter().any(|f| **word == format!("w{f}"));
            own.map(|turn| turn.reply().split(' ').filter(liked).count()).sum::<usize>()
        };
        // 100 replies: 150 expected of the persona's own, 32 of another's.
        assert!(count(1) > 2 * count(0) && count(1) > 2 * count(2), "{} {}", count(1), count(0));
    }
}
