//! A page of HTML that needs nothing beside it.

/// Colours follow the reader's choice on a screen; on paper they are those of a bright page.
const STYLE: &str = ":root{color-scheme:light dark;--text:#111;--page:#fff;--line:#ddd;--mark:#bbb;--code:#f5f5f5}\
@media screen and (prefers-color-scheme:dark){:root{--text:#e3e3e3;--page:#17191d;--line:#3b3f45;--mark:#80868e;--code:#24272d}}\
body{font:16px/1.5 system-ui,sans-serif;max-width:74rem;margin:2rem auto;padding:0 1rem;color:var(--text);background:var(--page)}\
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}.wide{margin:1rem 0}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.92rem}\
td,th{padding:.2rem .9rem .2rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}.n{text-align:right}\
svg,img{max-width:100%;height:auto;background:#fff}td span,td a,code{overflow-wrap:anywhere}code{font-size:.85em}td:first-child{white-space:nowrap}\
blockquote{white-space:pre-wrap;margin:1.5rem 0 .5rem;padding-left:.8rem;border-left:3px solid var(--mark)}\
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--code);padding:.6rem}figure{margin:1rem 0}summary{cursor:pointer}\
@media screen{.wide,figure{overflow-x:auto}.large svg{min-width:60rem}}";

/// Drawings that are wider, in pixels, cannot be read on a narrow screen: there they are moved, not shrunk.
const LARGE: f64 = 960.0;

/// Longer words of a table, such as paths and digests, may be broken; numbers are shorter.
const LONGEST: usize = 24;

/// A page in the making; all texts are escaped.
#[derive(Clone, Debug)]
pub struct Page {
    title: String,
    /// Rules of its own, after those of all pages.
    style: &'static str,
    body: String,
}

impl Page {
    /// An empty page.
    #[must_use]
    pub fn new(title: &str) -> Self {
        Self { title: escaped(title), style: "", body: String::new() }
    }

    /// With rules of its own.
    pub(crate) fn styled(self, style: &'static str) -> Self {
        Self { style, ..self }
    }

    /// Adds HTML as it is.
    pub(crate) fn raw(mut self, html: &str) -> Self {
        self.body += html;
        self
    }

    /// Adds a heading.
    #[must_use]
    pub fn heading(self, text: &str) -> Self {
        self.raw(&format!("<h2>{}</h2>\n", escaped(text)))
    }

    /// Adds a paragraph.
    #[must_use]
    pub fn paragraph(self, text: &str) -> Self {
        self.raw(&format!("<p>{}</p>\n", escaped(text)))
    }

    /// Adds a text of someone else's, its line breaks kept.
    #[must_use]
    pub fn quotation(self, text: &str) -> Self {
        self.raw(&format!("<blockquote>{}</blockquote>\n", escaped(text)))
    }

    /// Adds a command or a file.
    #[must_use]
    pub fn code(self, text: &str) -> Self {
        self.raw(&format!("<pre>{}</pre>\n", escaped(text)))
    }

    /// Adds a file that is unfolded on demand.
    #[must_use]
    pub fn details(self, summary: &str, text: &str) -> Self {
        let (summary, text) = (escaped(summary), escaped(text));
        self.raw(&format!("<details><summary>{summary}</summary><pre>{text}</pre></details>\n"))
    }

    /// Adds a table with a head, under which numbers stand on the right; rows may be shorter. One without rows is left out.
    #[must_use]
    pub fn table(self, head: &[&str], rows: &[Vec<String>]) -> Self {
        if rows.is_empty() {
            return self;
        }
        let most_are_numbers = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            2 * cells.filter(|cell| is_number(cell)).count() > rows.len()
        };
        let heads = head.iter().enumerate();
        let heads: String =
            heads.map(|(column, text)| cell("th", text, most_are_numbers(column))).collect();
        let line = |row: &Vec<String>| -> String {
            row.iter().map(|text| cell("td", text, !head.is_empty() && is_number(text))).collect()
        };
        self.lines(&heads, rows.iter().map(line))
    }

    /// Adds a table without a head that is unfolded on demand.
    #[must_use]
    pub fn folded_table(self, summary: &str, rows: &[Vec<String>]) -> Self {
        self.folded(summary, |page| page.table(&[], rows))
    }

    /// Adds something that is unfolded on demand.
    pub(crate) fn folded(self, summary: &str, inside: impl FnOnce(Self) -> Self) -> Self {
        let page = self.raw(&format!("<details><summary>{}</summary>\n", escaped(summary)));
        inside(page).raw("</details>\n")
    }

    /// Adds a table without a head whose cells are HTML.
    pub(crate) fn raw_table(self, rows: impl Iterator<Item = Vec<String>>) -> Self {
        let line = |row: Vec<String>| -> String {
            row.iter().map(|cell| format!("<td>{cell}</td>")).collect()
        };
        self.lines("", rows.map(line))
    }

    /// A table of which every line is the HTML of its cells.
    fn lines(self, head: &str, rows: impl Iterator<Item = String>) -> Self {
        let line = |cells: String| format!("<tr>{cells}</tr>\n");
        let head = if head.is_empty() { String::new() } else { line(head.to_owned()) };
        let body: String = rows.map(line).collect();
        self.raw(&format!("<div class=\"wide\"><table>\n{head}{body}</table></div>\n"))
    }

    /// Adds a drawing.
    ///
    /// - `svg`: an `svg` element; not escaped.
    /// - `title`: what it shows, for those who do not see it.
    #[must_use]
    pub fn drawing(self, svg: &str, title: &str) -> Self {
        let tag = svg.split('>').next().unwrap_or_default();
        let named = if tag.contains("role=") {
            svg.to_owned()
        } else {
            let name = format!("<svg role=\"img\" aria-label=\"{}\"", escaped(title));
            svg.replacen("<svg", &name, 1)
        };
        let width = tag.split(" width=\"").nth(1).and_then(|rest| rest.split('"').next());
        let width: f64 = width.and_then(|width| width.parse().ok()).unwrap_or(0.0);
        let class = if width > LARGE { " class=\"large\"" } else { "" };
        self.raw(&format!("<figure{class}>{named}</figure>\n"))
    }

    /// Adds a figure.
    ///
    /// - `html`: an `svg` or an `img`; not escaped.
    #[must_use]
    pub fn figure(self, html: &str) -> Self {
        self.raw(&format!("<figure>{html}</figure>\n"))
    }

    /// A text whose numbers have minus signs in place of hyphens, as people read them; programs do not.
    #[must_use]
    pub fn with_minus_signs(text: &str) -> String {
        let mut before = ' ';
        let mut rest = text.chars().peekable();
        let mut typeset = String::with_capacity(text.len());
        while let Some(c) = rest.next() {
            let begins = " \u{a0}[(".contains(before);
            let is_minus =
                c == '-' && begins && rest.peek().is_some_and(|next| next.is_ascii_digit());
            typeset.push(if is_minus { '−' } else { c });
            before = c;
        }
        typeset
    }

    /// The page as HTML.
    #[must_use]
    pub fn html(&self) -> String {
        let Self { title, style, body } = self;
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n<style>{STYLE}{style}</style>\n\
             </head>\n<body>\n<h1>{title}</h1>\n{body}</body>\n</html>\n"
        )
    }
}

/// A cell of a table.
fn cell(tag: &str, text: &str, is_right: bool) -> String {
    let class = if is_right { " class=\"n\"" } else { "" };
    format!("<{tag}{class}>{}</{tag}>", breakable(text))
}

/// Whether a cell is a number, with its interval, error or unit or without, or stands where there is none.
fn is_number(text: &str) -> bool {
    let of_number = |c: char| c.is_ascii_digit() || " \u{a0}.,+-−±[]%<e".contains(c);
    let begins = text.starts_with(|c: char| c.is_ascii_digit() || "+-−[<".contains(c));
    let has_digit = text.contains(|c: char| c.is_ascii_digit());
    text == "–" || (begins && has_digit && text.chars().all(of_number))
}

/// A text of which long words alone may be broken.
pub(crate) fn breakable(text: &str) -> String {
    let word = |word: &str| match word.chars().count() {
        0..=LONGEST => escaped(word),
        _ => format!("<span>{}</span>", escaped(word)),
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_words_of_a_table_may_be_broken_and_numbers_may_not() {
        let cells = ["0.812 [0.790, 0.831]", "of runs/mine/methods/ctrl-best/samples.json"];
        let html = Page::new("").table(&[], &[cells.map(str::to_owned).to_vec()]).html();
        assert!(html.contains("<td>0.812 [0.790, 0.831]</td>"), "{html}");
        assert!(html.contains("<td>of <span>runs/mine/methods/ctrl-best/samples.json</span></td>"));
        assert!(html.contains("td span,td a,code{overflow-wrap:anywhere}"));
        assert!(!html.contains("td{overflow-wrap"));
        let digest = "ab".repeat(32);
        let shown = breakable(&format!("0.8 <{digest}>"));
        assert_eq!(shown, format!("0.8 <span>&lt;{digest}&gt;</span>"));
    }

    #[test]
    fn texts_cannot_become_markup() {
        let page = Page::new("a < b")
            .heading("\"x\"")
            .paragraph("<script>")
            .table(&["one"], &[vec!["&".to_owned(), "2".to_owned()]])
            .quotation("</blockquote>")
            .code("a && b")
            .details("<i>", "</pre>")
            .figure("<svg></svg>");
        let html = page.html();
        assert!(html.contains("<title>a &lt; b</title>") && !html.contains("<script>"));
        assert!(html.contains("&lt;/blockquote&gt;") && html.contains("a &amp;&amp; b"));
        assert!(html.contains("&lt;/pre&gt;") && !html.contains("<i>"));
        assert!(
            html.contains("<tr><td>&amp;</td><td class=\"n\">2</td></tr>")
                && html.contains("<figure><svg>")
        );
    }

    #[test]
    fn numbers_stand_on_the_right_and_a_table_without_rows_is_left_out() {
        let row = ["raw", "−0.1 [−0.2, +0.3]", "2 apples"].map(str::to_owned).to_vec();
        let html = Page::new("").table(&["a", "b", "c"], &[row]).table(&["none"], &[]).html();
        assert!(html.contains("<tr><th>a</th><th class=\"n\">b</th><th>c</th></tr>"), "{html}");
        assert!(html.contains("<td class=\"n\">−0.1 [−0.2, +0.3]</td><td>2 apples</td>"), "{html}");
        assert!(!html.contains("none") && html.contains("<meta name=\"viewport\""), "{html}");
        for (text, expected) in [
            ("0.012 ± 0.001", true),
            ("38.8 %", true),
            ("< 0.0001", true),
            ("3.00e-20", true),
            ("–", true),
            ("not measured near", false),
            ("best-of:4", false),
            ("-", false),
            ("59ea8f", false),
        ] {
            assert_eq!(is_number(text), expected, "{text}");
        }
    }

    #[test]
    fn minus_signs_are_those_of_numbers() {
        let shown = Page::with_minus_signs("-0.1 [-0.2, +0.3] under exp:-10, ctrl-best 1e-5");
        assert_eq!(shown, "−0.1 [−0.2, +0.3] under exp:-10, ctrl-best 1e-5");
    }

    #[test]
    fn a_drawing_is_named_and_a_large_one_is_moved_on_narrow_screens() {
        let page = |svg: &str| Page::new("").drawing(svg, "a < b").html();
        let html = page("<svg width=\"1440\"><g></g></svg>");
        let named = "<figure class=\"large\"><svg role=\"img\" aria-label=\"a &lt; b\" width=";
        assert!(html.contains(named), "{html}");
        assert!(page("<svg width=\"500\"></svg>").contains("<figure><svg role="));
        assert!(page("<svg role=\"img\"></svg>").contains("<figure><svg role=\"img\"></svg>"));
    }
}
