//! `countersign inject` changes nothing but what it adds: bytes where nothing is added, and what values mean to
//! kubectl and to other readers where a document is written anew.

use std::sync::LazyLock;

use serde_json::Value;

use crate::support::manifests::{Said, inject, kubectl, python};

/// A pod that gets the sidecar.
const POD: &str = "
apiVersion: v1
kind: Pod
metadata:
  name: app
  annotations:
    countersign.dev/inject: enabled
    countersign.dev/keys: partner-keys
    countersign.dev/client-id: SANDBOX_5X00000000000000
spec:
  containers:
  - name: app
    image: shop:1
";

fn done(said: &Said) -> &str {
    assert_eq!(said.code, 0, "{}", said.err);
    &said.out
}

/// A list of something with these values and a pod, so that both are written anew.
fn listed(values: &str) -> String {
    let pod = POD.trim().replace('\n', "\n  ");
    format!(
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: example.com/v1\n  kind: Thing\n  metadata: {{ name: x }}\n  \
         spec:\n    {}\n- {pod}\n",
        values.trim().replace('\n', "\n    ")
    )
}

/// Keys that no reader takes from one line.
static LONG_KEYS: LazyLock<String> = LazyLock::new(|| {
    let long = |number: usize, value: &str| {
        let (key, escapes) = ("k".repeat(1100), "\\x01".repeat(300));
        format!("? {key}{number}\n{value}\n? \"{escapes}{number}\"\n{value}\n")
    };
    let text = long(1, ": v");
    let list = long(2, ": [1, [2, {c: 3}]]");
    let mapping = long(3, ": {d: {e: 5, f: []}}");
    text + "between: x\n" + &list + &mapping
});

#[test]
fn values_mean_to_kubectl_and_to_others_what_they_meant() {
    for values in [
        "a: yes\nb: off\nc: y\nd: n\ne: True\nf: tRue\ng: \"yes\"\nh: 'on'\ni: \"null\"\nj: ~\nk:\nl: Null",
        "a: 0400\nb: 0o17\nc: 08\nd: 0x1F\ne: 0b11\nf: 1_000\ng: \"0400\"\nh: '1_000'\ni: \"0b11\"\nj: \"0x1f\"",
        "a: 1e3\nb: .5\nc: 1.\nd: -0\ne: +1\nf: 1.10\ng: 1e-7\nh: 1.5E3\ni: \"1e3\"\nj: \"1.10\"\nk: 1e400\nl: \"+1\"",
        "a: 123456789012345678901234567890\nb: 9223372036854775807\nc: -9223372036854775808\nd: \"18446744073709551615\"",
        "a: 2026-01-01\nb: \"2026-01-01\"\nc: 2001-12-14t21:59:43.10-05:00\nd: 12:30:45\ne: 190:20:30\nf: \"12:30\"",
        "a: '='\nb: '<<'\nc: '-'\nd: '?'\ne: '*a'\nf: '&a'\ng: '!a'\nh: '|'\ni: '%a'\nj: '@a'\nk: '`a'\nl: '---'\nm: '...'",
        "a: 'a: b'\nb: 'a #b'\nc: a#b\nd: 'a:'\ne: ' a'\nf: 'a '\ng: ''\nh: '[a]'\ni: '{a}'\nj: 'a, b'\nk: '--- a'\nl: '.inf'",
        "a: \"tab\\tbell\\anul\\0\\u0085\\u2028\\ufeff\\x7f\"\nb: \"\\\\n \\\"q\\\"\"\nc: grüße 😀\nd: \"\\r\\n\"\ne: \"\u{e000}\"",
        "a: |\n  one\n  two\nb: |-\n  one\n    two\nc: |+\n  one\n\n\nd: >\n  one\n  two\n\n  three\ne: \"\\n\"\nf: \"a\\n\\n b\\n\"",
        "a: \"  one\\ntwo\"\nb: \"one \\ntwo\"\nc: \"\\tone\\ntwo\"\nd: \"one\\n\\ttwo\\n\"\ne: \"one\\r\\ntwo\"\nf: \"\\none\\n\"\ng: \"# a\\n# b\\n\"",
        "a: one\n  two\n  three\nb: 'one\n\n  two'\nc: \"one \\\n  two\"",
        "a: &x { b: &y [1, two], c: 3 }\nd: *x\ne: *y\nf: { <<: *x, c: 4 }\ng: { <<: [{ h: 1 }, { h: 2, i: 3 }] }",
        "1: a\nyes: b\n'no': c\n0x10: d\n\"\": e\n'a: b': f\n'2026-01-01': g\n? h\n: i",
        "a: {}\nb: []\nc: [[], [[1], {}], [{ d: [] }]]\ne: [~, '', null]\nf:\n- - 1\n  - - 2\n- - 3",
        "a: !!str 12\nb: !!str yes\nc: !!str",
        "a: {b: , c: , d , e: }\nf: [g: , h, i: {}, \"j\":, k: [l: ]]\nm: {'n':, \"o\":}\np:\nq: [r:s, ':', \"t:\"]",
        LONG_KEYS.as_str(),
    ] {
        let before = listed(values);
        let out = inject(&[], &before);
        let out = done(&out);
        assert!(out.contains("--client-id"), "nothing was added:\n{out}");
        let (meant, means) = (kubectl(&before), kubectl(out));
        let (meant, means) = (&meant[0]["spec"], &means[0]["spec"]);
        assert!(meant.is_object());
        assert_eq!(means, meant, "{values}\n{out}");
        assert_eq!(
            python(out)[0]["items"][0]["spec"],
            *meant,
            "{values}\n{out}"
        );
    }
}

#[test]
fn documents_that_do_not_change_keep_every_byte() {
    let odd = "\u{feff}# a comment\r\n%not: a directive\r\n".replace("%not: a directive\r\n", "");
    let odd = odd
        + "---   # here\r\na:   {b:    c}   # and here\r\n---\n---\n# nothing but this\n--- # and this\n...\n---\n\
           apiVersion: v1\nkind: Pod\nmetadata: {name: \"x\"   }\nspec: {containers: [ {name: a, image: \
           b} ]}\n---\n- a list\n- !custom tagged\n---\njust text\n---\nx: !!binary aGk=\ny: .inf\nlast: line";
    let said = inject(&[], &odd);
    assert_eq!(done(&said), odd);
    assert_eq!(
        said.err,
        "countersign: Pod x: nothing is added: it does not have the annotation countersign.dev/inject: enabled\n"
    );
    // Beside one that changes, too; its marker and the comments above it stay.
    let said = inject(
        &[],
        &format!(
            "{odd}\n---\t# mine\n\n# above\n{}# below\n---\n{odd}",
            POD.trim_start()
        ),
    );
    let out = done(&said);
    assert!(
        out.starts_with(&format!(
            "{odd}\n---\t# mine\n\n# above\napiVersion: v1\nkind: Pod\n"
        )),
        "{out}"
    );
    assert!(out.ends_with(&format!("\n---\n{odd}")), "{out}");
    for nothing in ["", "\n", "---\n", "# nothing\n", "---\n---\n"] {
        assert_eq!(done(&inject(&[], nothing)), nothing);
    }
}

#[test]
fn a_manifest_of_windows_keeps_its_line_ends() {
    let before =
        format!("---\n# above{POD}    args: [\"one\\ntwo\\n\"]\n---\nb: c\n").replace('\n', "\r\n");
    let said = inject(&[], &before);
    let out = done(&said);
    assert_eq!(out.matches('\n').count(), out.matches("\r\n").count());
    assert!(
        out.starts_with("---\r\n# above\r\napiVersion: v1\r\n") && out.ends_with("---\r\nb: c\r\n")
    );
    let unix = inject(&[], &before.replace('\r', ""));
    assert_eq!(python(out), python(done(&unix)));
    assert_eq!(
        python(out)[0]["spec"]["containers"][0]["args"][0],
        "one\ntwo\n"
    );
}

#[test]
fn json_stays_json_and_keeps_its_indentation() {
    let pod = python(POD)[0].clone();
    let compact = format!("{pod}\n");
    let two = serde_json::to_string_pretty(&pod).unwrap() + "\n";
    let said = inject(&[], &compact);
    assert_eq!(done(&said).lines().count(), 1);
    let value: Value = serde_json::from_str(done(&said)).unwrap();
    let said = inject(&[], &two);
    assert_eq!(
        done(&said),
        serde_json::to_string_pretty(&value).unwrap() + "\n"
    );
    let said = inject(&[], &two.replace("  ", "    "));
    assert_eq!(
        done(&said),
        (serde_json::to_string_pretty(&value).unwrap() + "\n").replace("  ", "    ")
    );
    // The same pod in YAML gets the same.
    assert_eq!(
        python(done(&inject(&[], POD)))[0].to_string(),
        value.to_string()
    );
}

#[test]
fn what_only_looks_like_a_marker_or_a_comment_is_a_key() {
    for key in [
        "---# not a marker",
        "\u{a0}# not a comment",
        "---\u{a0}neither",
    ] {
        let before = format!("{key}: b\n{}", POD.trim_start());
        let out = inject(&[], &before);
        let out = done(&out);
        assert_eq!(out.matches(": b\n").count(), 1, "{out}");
        let (meant, means) = (&python(&before)[0], &python(out)[0]);
        assert_eq!((&means[key], &means["kind"]), (&meant[key], &meant["kind"]));
        assert_eq!(done(&inject(&[], out)), out);
    }
}

#[test]
fn a_manifest_of_old_macs_is_read_as_lines() {
    let before = format!("# above{POD}---\nb: c\n---{POD}").replace('\n', "\r");
    let out = inject(&[], &before);
    let out = done(&out);
    assert!(out.starts_with("# above\rapiVersion: v1\n"), "{out:?}");
    assert_eq!(
        (
            out.matches("above").count(),
            out.matches("kind: Pod").count()
        ),
        (1, 2),
        "{out:?}"
    );
    assert!(out.contains("---\rb: c\r---\r"), "{out:?}");
    assert_eq!(python(out).len(), 3);
}

#[test]
fn several_files_come_out_as_one_stream() {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        ("a.yaml", "a: 1"),
        ("b.json", "{\"b\": 2}\n"),
        ("c.yaml", "---\nc: 3\n"),
    ];
    let paths = files.map(|(name, text)| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    });
    let said = inject(&[&paths[0], &paths[1], "-", &paths[2]], "d: 4\n");
    assert_eq!(done(&said), "a: 1\n---\n{\"b\": 2}\n---\nd: 4\n---\nc: 3\n");
}

/// Gives texts of which nothing may come out, but one line with this.
fn are_refused(texts: &[(&str, &str)]) {
    for (text, complaint) in texts {
        let said = inject(&[], text);
        assert_eq!((said.code, said.out.as_str()), (64, ""), "{text}");
        assert!(said.err.contains(complaint), "{complaint}\n{}", said.err);
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
    }
}

#[test]
fn what_cannot_be_read_is_told_with_its_line_and_nothing_comes_out() {
    are_refused(&[
        (
            "a: 1\nb: 2\na: 3\n",
            "stdin:3: the key \"a\" is given twice; before in line 1",
        ),
        (
            "---\n---\nb: {c: 1, c: 2}\n",
            "stdin:3: the key \"c\" is given twice; before in line 2",
        ),
        ("a: b: c\n", "stdin:1: column 5: not valid YAML: "),
        ("\n\n- a\nb", "stdin:5: column 1: not valid YAML: "),
        (
            "%YAML 1.2\n---\na: b\n",
            "stdin:1: directives of YAML are not understood; take the line with % out",
        ),
        (
            "a: 1\n...\nb: 2\n",
            "stdin:3: a second document begins without --- before it",
        ),
        ("a: *b\n", "stdin:1: "),
        (
            "{\"a\": 1,\n \"a\": 2}",
            "stdin:2: the key \"a\" is given twice\n",
        ),
        (
            &format!("a: b\n---{POD}    tty: !!int \"1\"\n"),
            "stdin:15: the tag !!int is not understood; write the value without it",
        ),
        (
            &format!("{POD}    x: .inf\n"),
            "stdin:14: .inf is a number without a value in JSON",
        ),
    ]);
}

#[test]
fn what_would_take_too_much_is_refused() {
    let deep = format!("a: {}1{}", "[".repeat(200), "]".repeat(200));
    let laughs: String = (1..12).fold("a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n".to_owned(), |text, n| {
        let before = vec![format!("*a{}", n - 1); 10].join(",");
        text + &format!("a{n}: &a{n} [{before}]\n")
    });
    // Each anchor keeps what is below it, too.
    let leaves = "1,".repeat(20_000);
    let anchors: String = (0..60).map(|n| format!("&a{n} [")).collect();
    let anchored = format!("a: {anchors}[{leaves}]{}\n", "]".repeat(60));
    // As deep as may be read, and the sidecar goes deeper than the pod did.
    let list = "{apiVersion: v1, kind: List, items: [";
    let pod = "{apiVersion: v1, kind: Pod, metadata: {annotations: {countersign.dev/inject: enabled, \
               countersign.dev/keys: k, countersign.dev/client-id: c}}, spec: {containers: [{name: a, image: b}]}}";
    let nested = format!("{}{pod}{}", list.repeat(48), "]}".repeat(48));
    are_refused(&[
        (&deep, "stdin:1: is deeper than 100 levels"),
        (&laughs, "has more than 1000000 values"),
        (&anchored, "has more than 1000000 values"),
        (
            &nested,
            "stdin:1: with the sidecar it cannot be written so that it can be read again: is deeper than 100 levels",
        ),
    ]);
}

#[test]
fn what_readers_understand_differently_is_refused() {
    let no_text = "stdin:14: a key is no text; put it between quotes";
    let colon = "stdin:14: a colon stands before , ] or }, where kubectl takes it for a part of the key; put a blank behind it";
    are_refused(&[
        (
            &format!("{POD}    env:\n    - name: a\n      <<: {{name: b}}\n"),
            "stdin:16: << brings \"name\", which stands before it; put << first",
        ),
        (
            &format!("{POD}    !mine <<: {{x: y}}\n"),
            "stdin:14: the tag !mine is not understood; write the value without it",
        ),
        (&format!("{POD}    1e7: a\n"), no_text),
        (&format!("{POD}    -0.0: a\n"), no_text),
        (&format!("{POD}    18446744073709551615: a\n"), no_text),
        (
            &format!("{POD}    yes: a\n    on: b\n"),
            "stdin:15: the key \"true\" is given twice, in different spellings",
        ),
        (
            &format!("a: \"\u{2028}\"\n---{POD}    args: [\"one\u{2028}two\"]\n"),
            "stdin:15: has a line end of Unicode (U+0085, U+2028 or U+2029), at which kubectl ends the line",
        ),
        (
            &format!("{POD}    args: [\"grüße 😀\", {{ä: ö, a : b, c:}}]\n"),
            colon,
        ),
        (&format!("{POD}    args: [a:, b]\n"), colon),
        (&format!("{POD}    args: [a \t:]\n"), colon),
        (&format!("{POD}    x: {{a\n        :}}\n"), colon),
    ]);
}
