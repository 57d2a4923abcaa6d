//! The text around documents: where each begins, its lines, and the comments above it.
//!
//! Lines end as every reader of YAML has it: by a line feed, a carriage return or both. Knows blanks and breaks alone;
//! what a document says is left to `yaml`.

/// What may stand between words of YAML; other white space is text.
const WHITE: [char; 4] = [' ', '\t', '\r', '\n'];

/// What ends a line for readers of YAML 1.1, kubectl among them, and is text for those of 1.2.
const ODD_BREAKS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];

/// The documents of a stream, each with the marker before it; together they are the text.
pub(super) fn documents(text: &str) -> Vec<&str> {
    let (mut documents, mut begin, mut position) = (Vec::new(), 0, 0);
    for line in lines(text) {
        if marked(line).is_some() && position > begin {
            documents.extend(text.get(begin..position));
            begin = position;
        }
        position += line.len();
    }
    documents.extend(text.get(begin..));
    documents
}

/// What a document begins with that stays when it is written anew: its marker, and comments below that.
pub(super) fn head(document: &str) -> String {
    let mut head = String::new();
    for line in lines(document) {
        if let Some(rest) = marked(line).filter(|_| head.is_empty()) {
            if !is_remark(rest) {
                head.push_str("---\n");
                break;
            }
        } else if !is_remark(line) {
            break;
        }
        head.push_str(line);
    }
    head
}

/// How many lines a text has that ends with one.
pub(super) fn count(text: &str) -> usize {
    lines(text)
        .filter(|line| line.ends_with(['\r', '\n']))
        .count()
}

/// The first line that has a character of `ODD_BREAKS`, counted from 1.
pub(super) fn oddly_broken(text: &str) -> Option<usize> {
    let place = lines(text).position(|line| line.contains(ODD_BREAKS))?;
    Some(place + 1)
}

/// The lines with their ends.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = match rest.find(['\r', '\n']) {
            Some(place) if rest.get(place..).is_some_and(|end| end.starts_with("\r\n")) => {
                place + 2
            }
            Some(place) => place + 1,
            None => rest.len(),
        };
        let (line, behind) = rest.split_at_checked(end).filter(|_| end > 0)?;
        rest = behind;
        Some(line)
    })
}

/// What stands behind the marker of a document, if the line begins with one.
fn marked(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("---")?;
    (rest.is_empty() || rest.starts_with(WHITE)).then_some(rest)
}

/// Whether a line says nothing but to people.
fn is_remark(line: &str) -> bool {
    let bare = line.trim_matches(WHITE);
    bare.is_empty() || bare.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_begin_where_every_reader_lets_them_begin() {
        for text in [
            "a: 1\n|---\nb: 2\n|--- # c\n",
            "# c\r\n|---\r\na: 1\r\n|---",
            "a: 1\r|---\rb: 2\r|---\tc\r",
            // No markers, for want of a blank behind them.
            "---#a: b\n---b: c\n",
            "a: 1\n---\u{a0}b: 2\n----\n",
            " ---\n",
            "",
        ] {
            let expected: Vec<&str> = text.split('|').collect();
            assert_eq!(documents(&text.replace('|', "")), expected, "{text:?}");
        }
    }

    #[test]
    fn comments_above_are_the_head_and_keys_are_not() {
        for (head_is, rest) in [
            ("---  # a\n\n \t# b\n", "a: 1\n# c\n"),
            ("# a\r\n\r\n", "a: 1\r\n"),
            ("# a\r\r", "a: 1\r# b\r"),
            ("", "---#a: b\n# c\n"),
            ("# a\n", "\u{a0}#a: b\n"),
            ("# a\n", "\u{2003}\na: 1\n"),
            ("", "a: 1"),
            ("# a", ""),
        ] {
            assert_eq!(head(&format!("{head_is}{rest}")), head_is, "{rest:?}");
        }
        assert_eq!(head("--- !!map\n# a\na: 1\n"), "---\n");
        assert_eq!(head("--- {a: 1}\n"), "---\n");
    }

    #[test]
    fn lines_are_counted_whatever_ends_them() {
        assert_eq!(count("a\nb\r\nc\rd"), 3);
        assert_eq!(count("\n\r\r\n\n"), 4);
        assert_eq!(oddly_broken("a\r\nb\rc\u{2028}d\n"), Some(3));
        assert_eq!(oddly_broken("a\u{a0}\n"), None);
    }
}
