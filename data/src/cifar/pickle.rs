//! As much of Python's pickle as a CIFAR batch is written in (protocols 2 to 5).
//!
//! A stack machine over a closed set of values: names of Python objects stay names, nothing is called. Numbers
//! of steps, and depth of values, are bounded.

use std::collections::HashMap;

/// Most operations of a file: an official batch has about 60,000.
const MOST_STEPS: usize = 1 << 20;
/// Deepest nesting of values: an official batch has 5.
const DEEPEST: usize = 16;

type Problem = &'static str;

/// A batch as it is pickled.
pub(super) struct Batch<'a> {
    pub(super) rows: usize,
    pub(super) data: std::borrow::Cow<'a, [u8]>,
    pub(super) labels: Vec<i64>,
}

#[derive(Clone)]
enum Value<'a> {
    Nothing,
    Whole(i64),
    Bytes(&'a [u8]),
    Text(&'a str),
    Name(&'a str, &'a str),
    Sequence(Vec<Value<'a>>, usize),
    Pairs(Vec<(Value<'a>, Value<'a>)>, usize),
    /// What is called, with what, and the state that is then set.
    Made(Box<[Value<'a>; 3]>, usize),
    /// A container that was remembered: no honest batch looks at one again.
    Remembered,
    Mark,
}

impl Value<'_> {
    fn depth(&self) -> usize {
        match self {
            Value::Sequence(_, depth) | Value::Pairs(_, depth) | Value::Made(_, depth) => *depth,
            _ => 0,
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    memo: HashMap<u32, Value<'a>>,
}

/// The batch in `bytes`.
pub(super) fn read_batch(bytes: &[u8]) -> Result<Batch<'_>, Problem> {
    let mut machine = Machine { bytes, at: 0, stack: Vec::new(), memo: HashMap::new() };
    let Value::Pairs(pairs, _) = machine.run()? else { return Err("it holds no dictionary") };
    let entry = |name: &str| {
        pairs.iter().find(|(key, _)| text_of(key) == Some(name.as_bytes())).map(|(_, value)| value)
    };
    let Some(Value::Sequence(labels, _)) = entry("labels") else {
        return Err("it has no `labels`");
    };
    let labels = labels.iter().map(|label| match label {
        Value::Whole(label) => Ok(*label),
        _ => Err("a label is no whole number"),
    });
    let labels = labels.collect::<Result<Vec<_>, _>>()?;
    let (rows, data) = array(entry("data").ok_or("it has no `data`")?)?;
    Ok(Batch { rows, data, labels })
}

fn text_of<'a>(value: &Value<'a>) -> Option<&'a [u8]> {
    match value {
        Value::Bytes(bytes) => Some(bytes),
        Value::Text(text) => Some(text.as_bytes()),
        _ => None,
    }
}

/// Rows and bytes of a numpy array of unsigned bytes in C order.
fn array<'a>(value: &Value<'a>) -> Result<(usize, std::borrow::Cow<'a, [u8]>), Problem> {
    const WRONG: Problem = "`data` is no numpy array of unsigned bytes in C order";
    let Value::Made(made, _) = value else { return Err(WRONG) };
    let (Value::Name(_, "_reconstruct"), Value::Sequence(state, _)) = (&made[0], &made[2]) else {
        return Err(WRONG);
    };
    let [Value::Whole(_), Value::Sequence(shape, _), kind, Value::Whole(0), content] = &state[..]
    else {
        return Err(WRONG);
    };
    let Value::Made(kind, _) = kind else { return Err(WRONG) };
    let unsigned = match (&kind[0], &kind[1]) {
        (Value::Name(_, "dtype"), Value::Sequence(arguments, _)) => {
            arguments.first().and_then(text_of) == Some(b"u1")
        }
        _ => false,
    };
    let [Value::Whole(rows), Value::Whole(_)] = shape[..] else { return Err(WRONG) };
    let content = match content {
        Value::Bytes(bytes) => std::borrow::Cow::Borrowed(*bytes),
        // Bytes as Python 3 writes them for Python 2: text in Latin-1.
        Value::Made(made, _) => match (&made[0], &made[1]) {
            (Value::Name("_codecs", "encode"), Value::Sequence(arguments, _)) => {
                let Some(Value::Text(text)) = arguments.first() else { return Err(WRONG) };
                let bytes = text.chars().map(|c| u8::try_from(u32::from(c)).map_err(|_| WRONG));
                std::borrow::Cow::Owned(bytes.collect::<Result<Vec<u8>, _>>()?)
            }
            _ => return Err(WRONG),
        },
        _ => return Err(WRONG),
    };
    match usize::try_from(rows) {
        Ok(rows) if unsigned => Ok((rows, content)),
        _ => Err(WRONG),
    }
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Value<'a>, Problem> {
        for _ in 0..MOST_STEPS {
            if let Some(value) = self.step()? {
                return Ok(value);
            }
        }
        Err("it takes more steps than any batch")
    }

    /// One operation; the value where it was the last.
    fn step(&mut self) -> Result<Option<Value<'a>>, Problem> {
        let operation = self.take(1)?[0];
        match operation {
            b'.' => return self.pop().map(Some),
            0x80 => self.take(1).map(|_| ())?,
            0x95 => self.take(8).map(|_| ())?,
            b'(' => self.stack.push(Value::Mark),
            b'N' => self.stack.push(Value::Nothing),
            0x88 | 0x89 => self.stack.push(Value::Whole(i64::from(operation == 0x88))),
            b'K' | b'M' | b'J' => self.whole(operation)?,
            b'U' | b'T' | b'C' | b'B' | 0x8e | 0x8c | b'X' => self.string(operation)?,
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.stack.push(Value::Name(module, name));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (module, name) else {
                    return Err("a name is no text");
                };
                self.stack.push(Value::Name(module, name));
            }
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.memory(operation)?,
            b')' => self.stack.push(Value::Sequence(Vec::new(), 1)),
            b']' => self.stack.push(Value::Sequence(Vec::new(), 1)),
            b'}' => self.stack.push(Value::Pairs(Vec::new(), 1)),
            0x85..=0x87 => self.tuple(usize::from(operation - 0x84))?,
            b't' => {
                let items = self.since_mark()?;
                self.push_sequence(items)?;
            }
            b'a' | b'e' => self.append(operation)?,
            b's' | b'u' => self.set(operation)?,
            b'R' | b'b' => self.make(operation)?,
            _ => return Err("it uses an operation that no batch needs"),
        }
        Ok(None)
    }

    fn whole(&mut self, operation: u8) -> Result<(), Problem> {
        let value = match operation {
            b'K' => i64::from(self.take(1)?[0]),
            b'M' => self.length(2)? as i64,
            // Four bytes with a sign.
            _ => i64::from(self.length(4)? as u32 as i32),
        };
        self.stack.push(Value::Whole(value));
        Ok(())
    }

    fn string(&mut self, operation: u8) -> Result<(), Problem> {
        let length = match operation {
            b'U' | b'C' | 0x8c => self.length(1)?,
            0x8e => self.length(8)?,
            _ => self.length(4)?,
        };
        let bytes = self.take(usize::try_from(length).map_err(|_| "it is cut short")?)?;
        let value = match operation {
            0x8c | b'X' => {
                Value::Text(std::str::from_utf8(bytes).map_err(|_| "a text is no UTF-8")?)
            }
            _ => Value::Bytes(bytes),
        };
        self.stack.push(value);
        Ok(())
    }

    fn memory(&mut self, operation: u8) -> Result<(), Problem> {
        let number = match operation {
            b'q' | b'h' => self.length(1)? as u32,
            b'r' | b'j' => self.length(4)? as u32,
            _ => self.memo.len() as u32,
        };
        if matches!(operation, b'h' | b'j') {
            let value = self.memo.get(&number).ok_or("it refers to nothing")?.clone();
            self.stack.push(value);
            return Ok(());
        }
        // Containers may still grow: only what stays as it is can be remembered as it is.
        let value = match self.stack.last().ok_or("it remembers nothing")? {
            Value::Sequence(..) | Value::Pairs(..) | Value::Made(..) => Value::Remembered,
            value => value.clone(),
        };
        self.memo.insert(number, value);
        Ok(())
    }

    fn tuple(&mut self, count: usize) -> Result<(), Problem> {
        let start = self.stack.len().checked_sub(count).ok_or("its stack is empty")?;
        let items = self.stack.split_off(start);
        self.push_sequence(items)
    }

    fn append(&mut self, operation: u8) -> Result<(), Problem> {
        let items = if operation == b'a' { vec![self.pop()?] } else { self.since_mark()? };
        let inner = deepest(&items)?;
        let Some(Value::Sequence(list, depth)) = self.stack.last_mut() else {
            return Err("it appends to what is no list");
        };
        *depth = inner.max(*depth);
        list.extend(items);
        Ok(())
    }

    fn set(&mut self, operation: u8) -> Result<(), Problem> {
        let items = if operation == b'u' {
            self.since_mark()?
        } else {
            let (value, key) = (self.pop()?, self.pop()?);
            vec![key, value]
        };
        let inner = deepest(&items)?;
        let Some(Value::Pairs(pairs, depth)) = self.stack.last_mut() else {
            return Err("it sets an item of what is no dictionary");
        };
        *depth = inner.max(*depth);
        let mut items = items.into_iter();
        while let Some(key) = items.next() {
            pairs.push((key, items.next().ok_or("a key has no value")?));
        }
        Ok(())
    }

    /// A call is written down, not made; a state is set once.
    fn make(&mut self, operation: u8) -> Result<(), Problem> {
        let (last, first) = (self.pop()?, self.pop()?);
        let depth = 1 + last.depth().max(first.depth());
        if depth > DEEPEST {
            return Err("its values are nested too deeply");
        }
        let made = match (operation, first) {
            (b'R', callee) => [callee, last, Value::Nothing],
            (_, Value::Made(made, _)) => {
                let [callee, arguments, _] = *made;
                [callee, arguments, last]
            }
            _ => return Err("it sets the state of what was not made"),
        };
        self.stack.push(Value::Made(Box::new(made), depth));
        Ok(())
    }

    fn push_sequence(&mut self, items: Vec<Value<'a>>) -> Result<(), Problem> {
        let depth = deepest(&items)?;
        self.stack.push(Value::Sequence(items, depth));
        Ok(())
    }

    fn since_mark(&mut self) -> Result<Vec<Value<'a>>, Problem> {
        let mark = self.stack.iter().rposition(|value| matches!(value, Value::Mark));
        let items = self.stack.split_off(mark.ok_or("a mark is missing")? + 1);
        self.stack.pop();
        Ok(items)
    }

    fn pop(&mut self) -> Result<Value<'a>, Problem> {
        self.stack.pop().ok_or("its stack is empty")
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Problem> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or("it is cut short")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// A little-endian number of `count` bytes.
    fn length(&mut self, count: usize) -> Result<u64, Problem> {
        Ok(self.take(count)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn line(&mut self) -> Result<&'a str, Problem> {
        let rest = &self.bytes[self.at..];
        // Names of Python objects are short.
        let end = rest.iter().take(200).position(|byte| *byte == b'\n');
        let line = self.take(end.ok_or("a name has no end")? + 1)?;
        std::str::from_utf8(&line[..line.len() - 1]).map_err(|_| "a name is no text")
    }
}

/// Depth of a container of `items`.
fn deepest(items: &[Value<'_>]) -> Result<usize, Problem> {
    let depth = 1 + items.iter().map(Value::depth).max().unwrap_or(0);
    if depth > DEEPEST { Err("its values are nested too deeply") } else { Ok(depth) }
}
