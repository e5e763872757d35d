use serde_json::json;

use super::*;

fn comparison(written: Value) -> Comparison {
    Comparison::try_from(written.clone()).unwrap_or_else(|error| panic!("{written}: {error}"))
}

fn judged(written: Value, found: &Found) -> Compared {
    comparison(written).judge(found)
}

fn text(text: &str) -> Found {
    Found::Text(text.to_owned())
}

#[track_caller]
fn holds(written: Value, found: Found) {
    assert_eq!(judged(written.clone(), &found), Compared::Holds, "{written} for {found}");
}

#[track_caller]
fn fails(written: Value, found: Found, why: &str) {
    assert_eq!(judged(written.clone(), &found), Compared::Fails(why.to_owned()), "{written}");
}

#[track_caller]
fn unclear(written: Value, found: Found, why: &str) {
    assert_eq!(judged(written.clone(), &found), Compared::Unclear(why.to_owned()), "{written}");
}

#[test]
fn numbers_are_compared_as_numbers() {
    for (bound, good, bad) in [
        ("<= 5", "5", "5.1"),
        ("< 5", "4.999", "5"),
        (">= -1", "-1", "-2"),
        ("> 0", "1e-9", "0"),
        ("== 5", "5.0", "6"),
        ("!= 5", "6", " 5 "),
        ("≤ 5", "5", "6"),
    ] {
        holds(json!(bound), text(good));
        assert!(matches!(judged(json!(bound), &text(bad)), Compared::Fails(_)), "{bound} for {bad}");
    }
    holds(json!({ "between": [1, 5] }), text("5"));
    fails(json!({ "between": [1, 5] }), text("5.01"), "`5.01` (expected between 1 and 5)");
    holds(json!(5), text("5.0\n"));
    holds(json!("<= 0.3"), text("-Inf"));
    fails(json!("<= 0.3"), text("+Inf"), "`+Inf` (expected <= 0.3)");
}

#[test]
fn what_is_no_number_is_neither_more_nor_less() {
    unclear(json!("<= 5"), text("many"), "`many` is not a number (expected <= 5)");
    unclear(json!(5), text(""), "`` is not a number (expected 5)");
    unclear(
        json!("> 0"),
        text("NaN"),
        "`NaN` is not a number that can be compared: nothing was divided by nothing (expected > 0)",
    );
    unclear(json!("!= 5"), text("ERR"), "`ERR` is not a number (expected not 5)");
    unclear(json!({ "one-of": [1, 2] }), text("x"), "`x` is not a number (expected one of 1, 2)");
    unclear(json!("<= 5"), Found::Nothing, "there is no value (expected <= 5)");
    unclear(json!("<= 5"), Found::Typed(json!(true)), "true is not a number (expected <= 5)");
    unclear(
        json!({ "contains": "a" }),
        Found::Typed(json!({ "a": 1 })),
        "{\"a\":1} is not a text (expected something that contains \"a\")",
    );
    unclear(json!({ "count": 1 }), text("a"), "`a` is not a list, and has no count (expected a count of 1)");
}

#[test]
fn texts_lists_and_types() {
    holds(json!("ok"), text("ok"));
    fails(json!("ok"), text("OK"), "`OK` (expected \"ok\")");
    holds(json!({ "contains": "a,b" }), text("x a,b"));
    fails(
        json!({ "contains": "a,b" }),
        text("anything"),
        "`anything` (expected something that contains \"a,b\")",
    );
    holds(json!({ "one-of": ["green"] }), text("green"));
    holds(json!({ "one-of": [1, "many"] }), text("many"));
    fails(
        json!({ "one-of": ["green", "yellow"] }),
        text("red"),
        "`red` (expected one of \"green\", \"yellow\")",
    );
    holds(json!({ "none-of": ["red"] }), text("green"));
    holds(
        json!({ "starts-with": "PO", "ends-with": "NG", "matches": "^P.+G$", "not-matches": "X" }),
        text("PONG"),
    );
    fails(
        json!({ "starts-with": "PO", "ends-with": "X" }),
        text("PONG"),
        "`PONG` (expected something that ends with `X`)",
    );
    holds(json!({ "matches": "^50[0-9]$" }), Found::Typed(json!(503)));
    // A value with a type keeps it.
    fails(json!(5), Found::Typed(json!("5")), "\"5\" (expected 5)");
    fails(json!("5"), Found::Typed(json!(5)), "5 (expected \"5\")");
    holds(json!("<= 5"), Found::Typed(json!("5")));
    fails(json!(1), Found::Typed(json!(true)), "true (expected 1)");
    holds(json!({ "contains": "10.0.0.1" }), Found::Typed(json!(["10.0.0.1", "10.0.0.2"])));
    holds(
        json!({ "count": ">= 2", "not-contains": "10.0.0.3" }),
        Found::Typed(json!(["10.0.0.1", "10.0.0.2"])),
    );
    holds(json!({ "equals": { "a": [1.0] } }), Found::Typed(json!({ "a": [1] })));
    holds(json!({ "present": false }), Found::Nothing);
    holds(json!({ "present": false }), Found::Typed(Value::Null));
    fails(json!({ "present": true }), Found::Nothing, "nothing (expected a value)");
    fails(json!({ "count": 1 }), Found::Nothing, "0 found (expected 1)");
    fails(json!("ok"), Found::Nothing, "nothing (expected \"ok\")");
}

#[test]
fn a_path_is_about_its_first_value_and_a_count_about_all() {
    let values = [json!(3), json!(4)];
    let nodes: Vec<&Value> = values.iter().collect();
    assert_eq!(comparison(json!({ "equals": 3, "count": 2 })).judge_nodes(&nodes), Compared::Holds);
    assert_eq!(
        comparison(json!({ "count": "> 2" })).judge_nodes(&nodes),
        Compared::Fails("2 found (expected > 2)".to_owned())
    );
    assert_eq!(comparison(json!({ "present": false })).judge_nodes(&[]), Compared::Holds);
}

#[test]
fn what_makes_no_sense_is_refused_with_what_to_write() {
    for (written, what, help) in [
        (json!(null), "nothing to compare with", "for no value write `{ present: false }`"),
        (json!([1, 2]), "a list says not how it is compared", "write `{ one-of: […] }` or `{ equals: […] }`"),
        (json!("<= 300ms"), "`300ms` is not a number", "without a unit"),
        (json!("< NaN"), "`NaN` is not a number", "write `\"< 300\"`"),
        (json!("> inf"), "`inf` is not a number", "write `\"> 300\"`"),
        (json!("=="), "nothing stands behind the comparison", "write `\"== 300\"`"),
        (json!({ "betwen": [1, 2] }), "unknown word `betwen` in a comparison", "did you mean `between`?"),
        (json!({ "between": [5, 1] }), "no number is between 5 and 1", "write `between: [1, 5]`"),
        (json!({ "between": ["1", 5] }), "`between` takes two numbers", "write `between: [1, 5]`"),
        (json!({ "one-of": [] }), "`one-of` is empty", "name at least one value"),
        (
            json!({ "contains": "" }),
            "every text contains the empty one of `contains`",
            "the part that matters",
        ),
        (json!({ "matches": "(" }), "`(` is not a regular expression: unclosed group", "put a `\\`"),
        (
            json!({ "matches": "(x{1000}){1000}" }),
            "`(x{1000}){1000}` is not a regular expression: it is too big",
            "",
        ),
        (json!({ "count": "many of" , "equals": null }), "`equals` has no value", "present"),
        (json!({}), "a comparison without a word", "words: `equals`"),
    ] {
        let error = Comparison::try_from(written.clone()).expect_err(&written.to_string());
        assert_eq!(error.what, what, "{written}");
        assert!(error.help.contains(help), "{written}: {}", error.help);
    }
}

/// Every pair of a comparison and a value has an answer: nothing panics, and no comparison of an order holds for what is
/// no number.
#[test]
fn every_pair_has_an_answer() {
    let written = [
        json!(1),
        json!("ok"),
        json!(true),
        json!("<= 1"),
        json!("> 1"),
        json!("!= 1"),
        json!({ "between": [0, 2] }),
        json!({ "one-of": [1, "ok", true] }),
        json!({ "contains": "o" }),
        json!({ "matches": "." }),
        json!({ "present": true }),
        json!({ "count": 1 }),
        json!({ "equals": [1] }),
        json!({ "not": "x" }),
    ];
    let values = [
        json!(null),
        json!(true),
        json!(1),
        json!(1.5),
        json!("1"),
        json!(""),
        json!("NaN"),
        json!([]),
        json!([1]),
        json!({}),
        json!({ "status": 200 }),
        json!(u64::MAX),
        json!("\u{0}\u{fffd}"),
    ];
    for written in &written {
        for value in &values {
            let all = [Found::Typed(value.clone()), Found::Text(value.to_string()), Found::Nothing];
            for found in all {
                let answer = judged(written.clone(), &found);
                let order = matches!(written.as_str(), Some("<= 1" | "> 1"));
                if order && found.number().is_err() {
                    assert!(matches!(answer, Compared::Unclear(_)), "{written} for {found}: {answer:?}");
                }
            }
        }
    }
}

#[test]
fn it_is_written_as_it_was_read() {
    for written in [json!("<= 5"), json!(5), json!({ "between": [1, 5], "not": 3 })] {
        assert_eq!(serde_json::to_value(comparison(written.clone())).unwrap(), written);
    }
}
