//! A page of HTML that needs nothing beside it.

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:74rem;margin:2rem auto;padding:0 1rem;color:#111}\
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.92rem;margin:1rem 0}\
td,th{padding:.2rem .9rem .2rem 0;text-align:left;vertical-align:top;border-bottom:1px solid #ddd}svg,img{max-width:100%;height:auto}\
td span,td a,code{overflow-wrap:anywhere}code{font-size:.85em}td:first-child{white-space:nowrap}\
blockquote{white-space:pre-wrap;margin:1.5rem 0 .5rem;padding-left:.8rem;border-left:3px solid #bbb}\
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f5f5f5;padding:.6rem}figure{margin:1rem 0}";

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

    /// Adds a table with a head; rows may be shorter.
    #[must_use]
    pub fn table(self, head: &[&str], rows: &[Vec<String>]) -> Self {
        let cells = |row: &Vec<String>| row.iter().map(|cell| breakable(cell)).collect();
        self.raw_table(head.iter().map(|cell| breakable(cell)).collect(), rows.iter().map(cells))
    }

    /// The same of cells that are HTML.
    pub(crate) fn raw_table(
        self,
        head: Vec<String>,
        rows: impl Iterator<Item = Vec<String>>,
    ) -> Self {
        let line = |tag: &str, cells: Vec<String>| {
            let cells: String = cells.iter().map(|cell| format!("<{tag}>{cell}</{tag}>")).collect();
            format!("<tr>{cells}</tr>\n")
        };
        let head = if head.is_empty() { String::new() } else { line("th", head) };
        let body: String = rows.map(|row| line("td", row)).collect();
        self.raw(&format!("<table>\n{head}{body}</table>\n"))
    }

    /// Adds a figure.
    ///
    /// - `html`: an `svg` or an `img`; not escaped.
    #[must_use]
    pub fn figure(self, html: &str) -> Self {
        self.raw(&format!("<figure>{html}</figure>\n"))
    }

    /// The page as HTML.
    #[must_use]
    pub fn html(&self) -> String {
        let Self { title, style, body } = self;
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<style>{STYLE}{style}</style>\n\
             </head>\n<body>\n<h1>{title}</h1>\n{body}</body>\n</html>\n"
        )
    }
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
            html.contains("<tr><td>&amp;</td><td>2</td></tr>") && html.contains("<figure><svg>")
        );
    }
}
