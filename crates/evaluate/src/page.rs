//! A report as one HTML file that needs nothing beside it.

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:74rem;margin:2rem auto;padding:0 1rem;color:#111}\
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.92rem;margin:1rem 0}\
td,th{padding:.2rem .9rem .2rem 0;text-align:left;vertical-align:top;border-bottom:1px solid #ddd}svg{max-width:100%;height:auto}\
td span{overflow-wrap:anywhere}td:first-child{white-space:nowrap}\
blockquote{white-space:pre-wrap;margin:1.5rem 0 .5rem;padding-left:.8rem;border-left:3px solid #bbb}\
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f5f5f5;padding:.6rem}figure{margin:1rem 0}";

/// Longer words of a table, such as paths and digests, may be broken; numbers are shorter.
const LONGEST: usize = 24;

/// A page in the making; all texts are escaped.
#[derive(Clone, Debug)]
pub struct Page {
    title: String,
    body: String,
}

impl Page {
    /// An empty page.
    pub fn new(title: &str) -> Self {
        Self { title: escaped(title), body: String::new() }
    }

    /// Adds a heading.
    #[must_use]
    pub fn heading(mut self, text: &str) -> Self {
        self.body += &format!("<h2>{}</h2>\n", escaped(text));
        self
    }

    /// Adds a paragraph.
    #[must_use]
    pub fn paragraph(mut self, text: &str) -> Self {
        self.body += &format!("<p>{}</p>\n", escaped(text));
        self
    }

    /// Adds a text of someone else's, its line breaks kept.
    #[must_use]
    pub fn quotation(mut self, text: &str) -> Self {
        self.body += &format!("<blockquote>{}</blockquote>\n", escaped(text));
        self
    }

    /// Adds a command or a file.
    #[must_use]
    pub fn code(mut self, text: &str) -> Self {
        self.body += &format!("<pre>{}</pre>\n", escaped(text));
        self
    }

    /// Adds a file that is unfolded on demand.
    #[must_use]
    pub fn details(mut self, summary: &str, text: &str) -> Self {
        let (summary, text) = (escaped(summary), escaped(text));
        self.body += &format!("<details><summary>{summary}</summary><pre>{text}</pre></details>\n");
        self
    }

    /// Adds a table with a head; rows may be shorter.
    #[must_use]
    pub fn table(mut self, head: &[&str], rows: &[Vec<String>]) -> Self {
        let line = |tag: &str, cells: &mut dyn Iterator<Item = &str>| {
            let cells: String =
                cells.map(|cell| format!("<{tag}>{}</{tag}>", breakable(cell))).collect();
            format!("<tr>{cells}</tr>\n")
        };
        let body: String =
            rows.iter().map(|row| line("td", &mut row.iter().map(String::as_str))).collect();
        let head =
            if head.is_empty() { String::new() } else { line("th", &mut head.iter().copied()) };
        self.body += &format!("<table>\n{head}{body}</table>\n");
        self
    }

    /// Adds a figure.
    ///
    /// - `svg`: as [`crate::draw_svg`] draws it; not escaped.
    #[must_use]
    pub fn figure(mut self, svg: &str) -> Self {
        self.body += &format!("<figure>{svg}</figure>\n");
        self
    }

    /// The page as HTML.
    pub fn html(&self) -> String {
        let Self { title, body } = self;
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
             </head>\n<body>\n<h1>{title}</h1>\n{body}</body>\n</html>\n"
        )
    }
}

/// A text of which long words alone may be broken.
fn breakable(text: &str) -> String {
    let word = |word: &str| match word.chars().count() {
        0..=LONGEST => escaped(word),
        _ => format!("<span>{}</span>", escaped(word)),
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

fn escaped(text: &str) -> String {
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
        assert!(html.contains("td span{overflow-wrap:anywhere}"));
        assert!(!html.contains("td{overflow-wrap"));
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
            html.contains("<tr><td>&amp;</td><td>2</td></tr>") && html.contains("<figure><svg>")
        );
    }
}
