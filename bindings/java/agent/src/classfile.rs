//! Puts a call in front of methods of a class: what a JVMTI agent may change in a loaded class.
//!
//! In: the bytes of a class file, and which methods call which static method. Out: the bytes of
//! the changed class. Invariant: any bytes are read without a panic, and what is not understood is
//! an error, so that the class stays as it was; no member is added, and the constant pool only
//! grows at its end.
//! Not here: which classes and methods (`hooks`), and loading the result.
//!
//! The call is `aload_0; invokestatic`, four bytes: the receiver, or the first argument of a
//! static method, is passed on. Four bytes keep the alignment of `tableswitch`. Jumps are relative
//! and stay as they are; what counts from the start of the code moves by four
//! (JVM: The Java Virtual Machine Specification, §4.7.3 and following).

use std::collections::BTreeSet;
use std::fmt;

/// A method that shall begin with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prologue<'a> {
    /// Name of the method.
    pub(crate) method: &'a str,
    /// Its descriptor, `([B)V`, or as much of it as all releases share.
    pub(crate) descriptor: &'a str,
    /// Name of the static method to call, which takes an `Object` and returns nothing.
    pub(crate) calls: &'a str,
}

/// Why a class stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClassFileError(String);

impl fmt::Display for ClassFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

type Result<T> = std::result::Result<T, ClassFileError>;

fn error<T>(text: impl Into<String>) -> Result<T> {
    Err(ClassFileError(text.into()))
}

/// Length of the call in bytes.
const CALL_BYTES: u16 = 4;

/// Descriptor of every method that is called.
const HOOK_DESCRIPTOR: &str = "(Ljava/lang/Object;)V";

/// The class with a call of `owner`'s methods at the start of each of `prologues`.
pub(crate) fn with_prologues(
    class: &[u8],
    owner: &str,
    prologues: &[Prologue<'_>],
) -> Result<Vec<u8>> {
    let mut input = Input::new(class);
    let head = input.take(8)?;
    let pool = Pool::read(&mut input)?;
    let mut growing = Growing::after(&pool);
    let mut out = head.to_vec();
    let mut rest = Vec::new();
    let interfaces_at = input.rest;
    input.take(6)?;
    let interfaces = input.u16()?;
    input.take(usize::from(interfaces) * 2)?;
    skip_fields(&mut input)?;
    rest.extend_from_slice(consumed(interfaces_at, &input));

    let mut found = BTreeSet::new();
    let count = input.u16()?;
    rest.extend_from_slice(&count.to_be_bytes());
    for _ in 0..count {
        let start = input.rest;
        input.take(2)?;
        let (name, descriptor) = (pool.text(input.u16()?)?, pool.text(input.u16()?)?);
        let wanted = prologues.iter().position(|p| {
            p.method.as_bytes() == name && descriptor.starts_with(p.descriptor.as_bytes())
        });
        let head = consumed(start, &input);
        let attributes = input.rest;
        skip_attributes(&mut input)?;
        rest.extend_from_slice(head);
        match wanted {
            None => rest.extend_from_slice(consumed(attributes, &input)),
            Some(which) => {
                found.insert(which);
                let method = growing.method(owner, prologues[which].calls)?;
                let attributes = consumed(attributes, &input);
                rest.extend(method_attributes(attributes, &pool, method)?);
            }
        }
    }
    if found.len() != prologues.len() {
        let (found, all) = (found.len(), prologues.len());
        return error(format!("{found} of {all} methods are there"));
    }
    rest.extend_from_slice(input.rest);

    out.extend_from_slice(&growing.next.to_be_bytes());
    out.extend_from_slice(pool.bytes);
    out.extend(growing.bytes);
    out.extend(rest);
    Ok(out)
}

/// What a class is related to, by the names of the JVM (`java/lang/Object`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relations {
    /// What it extends, and then what it implements.
    pub(crate) parents: Vec<String>,
}

/// What a class extends and implements.
pub(crate) fn relations(class: &[u8]) -> Result<Relations> {
    let mut input = Input::new(class);
    input.take(8)?;
    let pool = Pool::read(&mut input)?;
    // Access flags, and the class itself.
    input.take(4)?;
    let mut parents = vec![input.u16()?];
    for _ in 0..input.u16()? {
        parents.push(input.u16()?);
    }
    let names = parents.into_iter().map(|index| {
        let name = pool.class(index)?;
        Ok(String::from_utf8_lossy(name).into_owned())
    });
    Ok(Relations { parents: names.collect::<Result<_>>()? })
}

/// What lies between an earlier rest of the input and the one now.
fn consumed<'a>(before: &'a [u8], input: &Input<'_>) -> &'a [u8] {
    &before[..before.len() - input.rest.len()]
}

fn skip_fields(input: &mut Input<'_>) -> Result<()> {
    for _ in 0..input.u16()? {
        input.take(6)?;
        skip_attributes(input)?;
    }
    Ok(())
}

fn skip_attributes(input: &mut Input<'_>) -> Result<()> {
    for _ in 0..input.u16()? {
        input.u16()?;
        let length = input.length()?;
        input.take(length)?;
    }
    Ok(())
}

/// The attributes of a method, with a call of `hook` at the start of its code.
fn method_attributes(attributes: &[u8], pool: &Pool<'_>, hook: u16) -> Result<Vec<u8>> {
    let mut input = Input::new(attributes);
    let count = input.u16()?;
    let mut out = count.to_be_bytes().to_vec();
    let mut has_code = false;
    for _ in 0..count {
        let name = input.u16()?;
        let length = input.length()?;
        let content = input.take(length)?;
        let is_code = pool.text(name)? == b"Code";
        let content = if is_code { code(content, pool, hook)? } else { content.to_vec() };
        has_code |= is_code;
        put_attribute(&mut out, name, &content)?;
    }
    if has_code { Ok(out) } else { error("the method has no code") }
}

fn code(content: &[u8], pool: &Pool<'_>, hook: u16) -> Result<Vec<u8>> {
    let mut input = Input::new(content);
    let (max_stack, max_locals) = (input.u16()?, input.u16()?);
    if max_locals == 0 {
        return error("the method has no first argument");
    }
    let length = input.length()?;
    let code = input.take(length)?;
    let mut out = max_stack.max(1).to_be_bytes().to_vec();
    out.extend(max_locals.to_be_bytes());
    let longer = u32::try_from(length).ok().and_then(|length| length.checked_add(4));
    let longer = longer.filter(|&longer| longer <= u32::from(u16::MAX));
    let Some(longer) = longer else { return error("the method is too long for a call") };
    out.extend(longer.to_be_bytes());
    // aload_0, invokestatic
    out.extend([0x2a, 0xb8]);
    out.extend(hook.to_be_bytes());
    out.extend(code);

    let handlers = input.u16()?;
    out.extend(handlers.to_be_bytes());
    for _ in 0..handlers {
        for _ in 0..3 {
            out.extend(moved(input.u16()?)?.to_be_bytes());
        }
        out.extend(input.u16()?.to_be_bytes());
    }

    let mut kept = Vec::new();
    let mut count = 0_u16;
    for _ in 0..input.u16()? {
        let name = input.u16()?;
        let length = input.length()?;
        let content = input.take(length)?;
        // The others are for debuggers, and annotations of types for the compiler.
        let content = match pool.text(name)? {
            b"StackMapTable" => stack_map(content)?,
            b"LineNumberTable" => lines(content)?,
            _ => continue,
        };
        put_attribute(&mut kept, name, &content)?;
        count += 1;
    }
    out.extend(count.to_be_bytes());
    out.extend(kept);
    Ok(out)
}

/// An offset from the start of the code.
fn moved(offset: u16) -> Result<u16> {
    match offset.checked_add(CALL_BYTES) {
        Some(moved) => Ok(moved),
        None => error("an offset is beyond the longest method"),
    }
}

/// Only the first frame counts from the start, the others from the one before.
fn stack_map(content: &[u8]) -> Result<Vec<u8>> {
    let mut input = Input::new(content);
    let frames = input.u16()?;
    let mut out = frames.to_be_bytes().to_vec();
    if frames > 0 {
        let kind = input.u8()?;
        let by = u8::try_from(CALL_BYTES).expect("four fits into a byte");
        match kind {
            0..=59 | 64..=123 => out.push(kind + by),
            // same_frame and same_locals_1_stack_item_frame whose extended forms have to hold it.
            60..=63 => {
                out.push(251);
                out.extend(moved(kind.into())?.to_be_bytes());
            }
            124..=127 => {
                out.push(247);
                out.extend(moved(u16::from(kind) - 64)?.to_be_bytes());
            }
            247..=255 => {
                out.push(kind);
                out.extend(moved(input.u16()?)?.to_be_bytes());
            }
            _ => return error(format!("a stack map frame of kind {kind}")),
        }
    }
    out.extend(input.rest);
    Ok(out)
}

fn lines(content: &[u8]) -> Result<Vec<u8>> {
    let mut input = Input::new(content);
    let count = input.u16()?;
    let mut out = count.to_be_bytes().to_vec();
    for _ in 0..count {
        out.extend(moved(input.u16()?)?.to_be_bytes());
        out.extend(input.u16()?.to_be_bytes());
    }
    Ok(out)
}

fn put_attribute(out: &mut Vec<u8>, name: u16, content: &[u8]) -> Result<()> {
    let Ok(length) = u32::try_from(content.len()) else { return error("an attribute is too long") };
    out.extend(name.to_be_bytes());
    out.extend(length.to_be_bytes());
    out.extend(content);
    Ok(())
}

/// The constant pool as it is.
struct Pool<'a> {
    /// One more than the last index.
    count: u16,
    bytes: &'a [u8],
    /// The text of each index that is one.
    texts: Vec<Option<&'a [u8]>>,
    /// Where the name is of each index that is a class.
    classes: Vec<u16>,
}

impl<'a> Pool<'a> {
    fn read(input: &mut Input<'a>) -> Result<Self> {
        let count = input.u16()?;
        let start = input.rest;
        let mut texts = vec![None; usize::from(count)];
        let mut classes = vec![0; usize::from(count)];
        let mut index = 1;
        while index < usize::from(count) {
            let mut slots = 1;
            match input.u8()? {
                1 => {
                    let length = input.u16()?;
                    texts[index] = Some(input.take(length.into())?);
                }
                3 | 4 | 9..=12 | 17 | 18 => drop(input.take(4)?),
                // A long or double takes two indices.
                5 | 6 => {
                    input.take(8)?;
                    slots = 2;
                }
                7 => classes[index] = input.u16()?,
                8 | 16 | 19 | 20 => drop(input.take(2)?),
                15 => drop(input.take(3)?),
                tag => return error(format!("a constant of kind {tag}")),
            }
            index += slots;
        }
        Ok(Self { count, bytes: consumed(start, input), texts, classes })
    }

    /// The name of a class.
    fn class(&self, index: u16) -> Result<&'a [u8]> {
        self.text(self.classes.get(usize::from(index)).copied().unwrap_or(0))
    }

    fn text(&self, index: u16) -> Result<&'a [u8]> {
        match self.texts.get(usize::from(index)) {
            Some(Some(text)) => Ok(text),
            _ => error(format!("constant {index} is no text")),
        }
    }
}

/// What is added at the end of the constant pool.
struct Growing {
    next: u16,
    bytes: Vec<u8>,
}

impl Growing {
    fn after(pool: &Pool<'_>) -> Self {
        Self { next: pool.count, bytes: Vec::new() }
    }

    fn add(&mut self, tag: u8, content: &[u8]) -> Result<u16> {
        let index = self.next;
        let Some(next) = index.checked_add(1) else { return error("the constant pool is full") };
        self.next = next;
        self.bytes.push(tag);
        self.bytes.extend(content);
        Ok(index)
    }

    fn text(&mut self, text: &str) -> Result<u16> {
        let Ok(length) = u16::try_from(text.len()) else { return error("a name is too long") };
        self.add(1, &[&length.to_be_bytes()[..], text.as_bytes()].concat())
    }

    fn pair(&mut self, tag: u8, first: u16, second: u16) -> Result<u16> {
        self.add(tag, &[first.to_be_bytes(), second.to_be_bytes()].concat())
    }

    /// A static method of `owner`.
    fn method(&mut self, owner: &str, name: &str) -> Result<u16> {
        let owner = self.text(owner)?;
        let class = self.add(7, &owner.to_be_bytes())?;
        let (name, descriptor) = (self.text(name)?, self.text(HOOK_DESCRIPTOR)?);
        let name_and_type = self.pair(12, name, descriptor)?;
        self.pair(10, class, name_and_type)
    }
}

/// Bytes that are left to be read, big end first.
struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return error("the class file ends too early");
        };
        self.rest = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn length(&mut self) -> Result<usize> {
        let bytes = self.take(4)?;
        let length = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        usize::try_from(length).map_err(|_| ClassFileError("a length beyond all memory".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A class of the shim's, which has loops, handlers, switches and lambdas.
    fn class() -> Option<Vec<u8>> {
        let path = concat!(env!("OUT_DIR"), "/classes/tubthumping/crac/Coordinator.class");
        let class = std::fs::read(path).ok();
        if class.is_none() {
            println!("skipped: no class to try it on: TUB_SHIM_JAR was used");
        }
        class
    }

    const PREPARE: Prologue<'_> =
        Prologue { method: "prepare", descriptor: "(JJ)[B", calls: "called" };

    /// The code of the method, without what comes after it.
    fn code_of(class: &[u8], wanted: &str) -> Vec<u8> {
        let mut input = Input::new(class);
        input.take(8).unwrap();
        let pool = Pool::read(&mut input).unwrap();
        input.take(6).unwrap();
        let interfaces = input.u16().unwrap();
        input.take(usize::from(interfaces) * 2).unwrap();
        skip_fields(&mut input).unwrap();
        for _ in 0..input.u16().unwrap() {
            input.take(2).unwrap();
            let name = pool.text(input.u16().unwrap()).unwrap();
            input.take(2).unwrap();
            for _ in 0..input.u16().unwrap() {
                let attribute = pool.text(input.u16().unwrap()).unwrap();
                let length = input.length().unwrap();
                let mut content = Input::new(input.take(length).unwrap());
                if name == wanted.as_bytes() && attribute == b"Code" {
                    content.take(4).unwrap();
                    let length = content.length().unwrap();
                    return content.take(length).unwrap().to_vec();
                }
            }
        }
        panic!("no {wanted}");
    }

    #[test]
    fn the_call_comes_first_and_the_rest_stays() {
        let Some(class) = class() else { return };
        let changed = with_prologues(&class, "a/B", &[PREPARE]).unwrap();
        let (before, after) = (code_of(&class, "prepare"), code_of(&changed, "prepare"));
        assert_eq!(after[..2], [0x2a, 0xb8]);
        assert_eq!(after[4..], before);
        assert_eq!(code_of(&class, "perform"), code_of(&changed, "perform"));
        // What was changed can be changed again.
        let twice = with_prologues(&changed, "a/B", &[PREPARE]).unwrap();
        assert_eq!(code_of(&twice, "prepare")[8..], before);
    }

    #[test]
    fn a_method_that_is_not_there_leaves_the_class_as_it_was() {
        let Some(class) = class() else { return };
        let absent = Prologue { method: "prepare", descriptor: "(Q)V", calls: "called" };
        let error = with_prologues(&class, "a/B", &[PREPARE, absent]).unwrap_err();
        assert_eq!(error.to_string(), "1 of 2 methods are there");
    }

    #[test]
    fn no_bytes_make_it_stumble() {
        let Some(class) = class() else { return };
        for end in (0..class.len()).step_by(7) {
            // Cut off among the attributes of the class it is still understood, and harmless.
            let _ = with_prologues(&class[..end], "a/B", &[PREPARE]);
        }
        for at in 0..class.len() {
            let mut bytes = class.clone();
            bytes[at] = bytes[at].wrapping_add(127);
            // Whatever comes of it, it is a result.
            let _ = with_prologues(&bytes, "a/B", &[PREPARE]);
        }
    }

    #[test]
    fn the_first_frame_moves_and_no_other() {
        for (before, after) in [
            (vec![0, 0], vec![0, 0]),
            (vec![0, 2, 10, 20], vec![0, 2, 14, 20]),
            (vec![0, 1, 62], vec![0, 1, 251, 0, 66]),
            (vec![0, 1, 70, 1], vec![0, 1, 74, 1]),
            (vec![0, 1, 126, 1], vec![0, 1, 247, 0, 66, 1]),
            (vec![0, 1, 252, 0, 255, 1], vec![0, 1, 252, 1, 3, 1]),
        ] {
            assert_eq!(stack_map(&before).unwrap(), after);
        }
        assert!(stack_map(&[0, 1, 200]).is_err());
    }
}
