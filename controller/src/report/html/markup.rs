//! Writes markup that is HTML and well-formed XML at once, with every text escaped.

use std::fmt::Write;

/// A document that is being written.
#[derive(Debug, Default)]
pub(crate) struct Markup {
    text: String,
    /// What identifiers begin with.
    prefix: &'static str,
    /// How many identifiers were given.
    names: u32,
}

/// The attributes of an element.
pub(crate) type Attributes<'a> = &'a [(&'a str, &'a str)];

impl Markup {
    /// A piece of a document, whose identifiers begin with a prefix that no other piece has.
    pub(crate) fn piece(prefix: &'static str) -> Self {
        Markup { prefix, ..Markup::default() }
    }

    /// What was written.
    pub(crate) fn finish(self) -> String {
        self.text
    }

    /// A new identifier, for what one element says of another.
    pub(crate) fn name(&mut self) -> String {
        self.names += 1;
        format!("{}n{}", self.prefix, self.names)
    }

    /// Writes what is markup already.
    pub(crate) fn raw(&mut self, markup: &str) {
        self.text.push_str(markup);
    }

    /// An element with its content.
    pub(crate) fn element(
        &mut self,
        tag: &str,
        attributes: Attributes<'_>,
        content: impl FnOnce(&mut Markup),
    ) {
        self.open(tag, attributes);
        content(self);
        self.close(tag);
    }

    /// An element with nothing but text in it.
    pub(crate) fn text(&mut self, tag: &str, attributes: Attributes<'_>, text: &str) {
        self.element(tag, attributes, |page| page.words(text));
    }

    /// An element that cannot have content.
    pub(crate) fn void(&mut self, tag: &str, attributes: Attributes<'_>) {
        self.begin(tag, attributes);
        self.text.push_str("/>");
    }

    /// Text. What could change how the rest of the page is read is replaced: see [`legal`].
    pub(crate) fn words(&mut self, text: &str) {
        self.text.push_str(&quick_xml::escape::escape(legal(text)));
    }

    /// Text of Squall's own, in which names stand in backticks.
    pub(crate) fn prose(&mut self, text: &str) {
        let pieces = text.split('`').count();
        for (at, piece) in text.split('`').enumerate() {
            // An odd backtick is one of a name.
            if at % 2 == 1 && at + 1 < pieces {
                self.text("code", &[("dir", "auto")], piece);
            } else {
                if at % 2 == 1 {
                    self.words("`");
                }
                self.words(piece);
            }
        }
    }

    /// An element with prose in it.
    pub(crate) fn prosaic(&mut self, tag: &str, attributes: Attributes<'_>, text: &str) {
        self.element(tag, attributes, |page| page.prose(text));
    }

    /// A list, of at most [`MOST`] items; nothing where there is none.
    pub(crate) fn list(&mut self, items: &[String]) {
        if items.is_empty() {
            return;
        }
        self.element("ul", &[], |page| {
            items.iter().take(MOST).for_each(|item| page.prosaic("li", &[], item));
            if items.len() > MOST {
                page.text("li", &[], &format!("and {} more", items.len() - MOST));
            }
        });
    }

    /// A term with what there is to say of it, inside a `dl`; nothing without text.
    pub(crate) fn fact(&mut self, term: &str, text: &str) {
        if text.is_empty() {
            return;
        }
        self.element("div", &[], |page| {
            page.text("dt", &[], term);
            page.prosaic("dd", &[], text);
        });
    }

    /// A table that scrolls by itself where the page is too narrow. The first cell of a row is its head.
    pub(crate) fn table(&mut self, caption: &str, heads: &[&str], rows: &[Vec<String>]) {
        let attributes =
            [("class", "scroll"), ("tabindex", "0"), ("role", "region"), ("aria-label", caption)];
        self.element("div", &attributes, |page| {
            page.element("table", &[], |page| {
                page.text("caption", &[], caption);
                page.element("thead", &[], |page| {
                    page.element("tr", &[], |page| {
                        heads.iter().for_each(|head| page.text("th", &[("scope", "col")], head));
                    });
                });
                page.element("tbody", &[], |page| rows.iter().for_each(|row| page.row(row)));
            });
        });
    }

    fn row(&mut self, cells: &[String]) {
        self.element("tr", &[], |page| {
            for (at, cell) in cells.iter().enumerate() {
                // Figures stay on one line; only sentences are broken.
                let long: Attributes<'_> =
                    if cell.chars().count() > LONG { &[("class", "long")] } else { &[] };
                // What a figure may also be stands below it: side by side, the tables are wider than a sheet of paper.
                let range = cell.strip_suffix(')').and_then(|cell| cell.split_once(" ("));
                match (at, range) {
                    (0, _) => page.prosaic("th", &[&[("scope", "row")], long].concat(), cell),
                    (_, Some((figure, range))) if long.is_empty() => page.element("td", &[], |page| {
                        page.words(figure);
                        page.raw(" ");
                        page.text("span", &[("class", "range")], &format!("({range})"));
                    }),
                    _ => page.prosaic("td", long, cell),
                }
            }
        });
    }

    fn open(&mut self, tag: &str, attributes: Attributes<'_>) {
        self.begin(tag, attributes);
        self.text.push('>');
    }

    fn close(&mut self, tag: &str) {
        let _ = write!(self.text, "</{tag}>");
        // A line for each block keeps the source readable, and differences small.
        if matches!(tag, "div" | "section" | "article" | "figure" | "p" | "tr" | "li" | "h1" | "h2" | "h3") {
            self.text.push('\n');
        }
    }

    fn begin(&mut self, tag: &str, attributes: Attributes<'_>) {
        let _ = write!(self.text, "<{tag}");
        for (name, value) in attributes {
            let _ = write!(self.text, " {name}=\"{}\"", quick_xml::escape::escape(legal(value)));
        }
    }
}

/// A cell with more characters than this is a sentence.
const LONG: usize = 32;
/// So many items of a list are shown.
pub(crate) const MOST: usize = 200;

/// The text without what XML has no place for, and without the characters that turn the order of what follows them
/// (Unicode TR9, 2.1 to 2.4): a name must not rewrite the verdict that stands behind it.
fn legal(text: &str) -> String {
    let allowed = |c: char| match c {
        '\t' | '\n' | '\r' => true,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}' => false,
        c => !c.is_control(),
    };
    text.chars().map(|c| if allowed(c) { c } else { '\u{fffd}' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Markup)) -> String {
        let mut page = Markup::default();
        write(&mut page);
        page.finish()
    }

    #[test]
    fn nothing_that_is_written_becomes_markup() {
        let text = "<script>alert('x')</script> & \"q\" \u{7}\u{202e}\u{2067}\u{fffe}";
        let escaped = "&lt;script&gt;alert(&apos;x&apos;)&lt;/script&gt; &amp; &quot;q&quot; \u{fffd}\u{fffd}\u{fffd}\u{fffd}";
        assert_eq!(written(|page| page.text("b", &[], text)), format!("<b>{escaped}</b>"));
        assert_eq!(written(|page| page.void("b", &[("a", text)])), format!("<b a=\"{escaped}\"/>"));
        assert_eq!(written(|page| page.prose("a `<b>` c")), "a <code dir=\"auto\">&lt;b&gt;</code> c");
    }

    #[test]
    fn an_odd_backtick_is_only_a_backtick() {
        assert_eq!(written(|page| page.prose("a ` b")), "a ` b");
        assert_eq!(written(|page| page.prose("`a` b `")), "<code dir=\"auto\">a</code> b `");
        assert_eq!(written(|page| page.prose("plain")), "plain");
    }

    #[test]
    fn a_list_says_what_it_leaves_out() {
        let items: Vec<String> = (0..MOST + 3).map(|item| item.to_string()).collect();
        let list = written(|page| page.list(&items));
        assert!(list.contains("<li>199</li>") && !list.contains("<li>200</li>"), "{list}");
        assert!(list.contains("<li>and 3 more</li>"), "{list}");
        assert_eq!(written(|page| page.list(&[])), "");
    }
}
