//! Where the labels of a panel stand: beside their points, clear of markers, of bars and of each other.

use super::Point;

/// How far a marker reaches from its middle, and how far the ends of a bar do, in pixels.
const MARKER: i32 = 7;
const BAR_END: i32 = 6;
/// Points that are not farther apart from left to right stand above each other.
const COLUMN: i32 = 32;
/// Half the height of a label.
const HALF_HEIGHT: i32 = 7;
/// How far below or above its point the middle of a label may be: the nearest place, how far apart places are, and how many there are.
const NEAREST: i32 = 6;
const STEP: i32 = 8;
const STEPS: i32 = 7;

/// Pixels from left to right and from top to bottom, the last ones included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Frame {
    pub(super) left: i32,
    pub(super) top: i32,
    pub(super) right: i32,
    pub(super) bottom: i32,
}

impl Frame {
    fn about((x, y): (i32, i32), (across, down): (i32, i32)) -> Self {
        Self { left: x - across, top: y - down, right: x + across, bottom: y + down }
    }

    fn meets(&self, other: &Self) -> bool {
        let across = self.left <= other.right && other.left <= self.right;
        across && self.top <= other.bottom && other.top <= self.bottom
    }

    fn holds(&self, other: &Self) -> bool {
        let across = self.left <= other.left && other.right <= self.right;
        across && self.top <= other.top && other.bottom <= self.bottom
    }
}

/// A point and where it is drawn.
#[derive(Clone, Copy)]
pub(super) struct Mark<'a> {
    pub(super) point: &'a Point,
    /// The pixel of its estimate.
    pub(super) at: (i32, i32),
    /// From where its bar reaches down to where.
    pub(super) bar: (i32, i32),
}

impl<'a> Mark<'a> {
    fn text(&self) -> Option<&'a str> {
        self.point.label.as_deref()
    }

    /// What labels leave free: marker and bar.
    fn frames(&self) -> [Frame; 2] {
        let ((x, y), (top, bottom)) = (self.at, self.bar);
        let bar = Frame { left: x - BAR_END, top: top - 1, right: x + BAR_END, bottom: bottom + 1 };
        [Frame::about((x, y), (MARKER, MARKER)), bar]
    }

    /// Whether another one is above or below it.
    fn in_column(&self, other: &Mark<'_>) -> bool {
        (self.at.0 - other.at.0).abs() <= COLUMN
    }
}

/// On which side of its point a label stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Side {
    Right,
    Left,
    /// Straight above or below.
    Middle,
}

/// What is written beside a point.
#[derive(Clone, Copy)]
pub(super) struct Label<'a> {
    pub(super) mark: Mark<'a>,
    pub(super) text: &'a str,
    pub(super) side: Side,
    pub(super) frame: Frame,
}

impl Label<'_> {
    /// Whether a point would be labelled the same, is above or below the labelled one, and nothing that says otherwise is between them.
    fn speaks_for(&self, mark: &Mark<'_>, marks: &[Mark<'_>]) -> bool {
        let says_the_same = |other: &Mark<'_>| other.text() == Some(self.text);
        let (y, labelled) = (mark.at.1, self.mark.at.1);
        let between = |other: &Mark<'_>| {
            let (top, bottom) = (y.min(labelled), y.max(labelled));
            other.in_column(mark) && top < other.at.1 && other.at.1 < bottom
        };
        says_the_same(mark)
            && self.mark.in_column(mark)
            && !marks.iter().any(|other| between(other) && !says_the_same(other))
    }
}

/// Labels in the first place of each that is free, one for points above each other that are labelled the same; none where no place is free.
pub(super) fn place<'a>(marks: &[Mark<'a>], panel: Frame) -> Vec<Label<'a>> {
    let mut taken: Vec<Frame> = marks.iter().flat_map(|mark| mark.frames()).collect();
    let mut labels: Vec<Label<'a>> = Vec::new();
    for mark in marks {
        let Some(text) = mark.text() else { continue };
        if labels.iter().any(|label| label.speaks_for(mark, marks)) {
            continue;
        }
        let free = |(_, frame): &(Side, Frame)| {
            panel.holds(frame) && !taken.iter().any(|other| other.meets(frame))
        };
        let found = places(mark.at, text).into_iter().find(free);
        if let Some((side, frame)) = found {
            taken.push(frame);
            labels.push(Label { mark: *mark, text, side, frame });
        }
    }
    labels
}

/// Where a label may stand, the best place first.
fn places((x, y): (i32, i32), text: &str) -> Vec<(Side, Frame)> {
    let half = ((7 * text.chars().count() as i32 + 5) / 2, HALF_HEIGHT);
    let beside = MARKER + 1 + half.0;
    let middles = [(Side::Right, x + beside), (Side::Left, x - beside), (Side::Middle, x)];
    let at = |below: i32| middles.map(|(side, x)| (side, Frame::about((x, y + below), half)));
    let away = (0..STEPS).map(|step| NEAREST + STEP * step);
    away.flat_map(|away| [away, -away]).flat_map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PANEL: Frame = Frame { left: 64, top: 166, right: 467, bottom: 535 };

    /// A label and the pixel of its point, whose bar has the length of its marker.
    type At = (&'static str, i32, i32);

    fn point(&(label, x, y): &At) -> Point {
        let y = f64::from(y);
        let ends = [y, y - 7.0, y + 7.0];
        Point { name: "raw".into(), x: f64::from(x), y: ends, label: Some(label.into()) }
    }

    fn mark(point: &Point) -> Mark<'_> {
        let [y, top, bottom] = point.y.map(|y| y as i32);
        Mark { point, at: (point.x as i32, y), bar: (top, bottom) }
    }

    /// What is written, in this order, by labels that cover nothing.
    fn written(points: &[At], panel: Frame) -> Vec<String> {
        let points: Vec<Point> = points.iter().map(point).collect();
        let marks: Vec<Mark<'_>> = points.iter().map(mark).collect();
        let labels = place(&marks, panel);
        for (index, Label { text, frame, .. }) in labels.iter().enumerate() {
            assert!(panel.holds(frame), "{text}");
            let mut labels = labels[..index].iter().map(|label| label.frame);
            assert!(!labels.any(|other| other.meets(frame)), "{text}");
            let mut marks = marks.iter().flat_map(|mark| mark.frames());
            assert!(!marks.any(|other| other.meets(frame)), "{text}");
        }
        labels.iter().map(|label| label.text.to_owned()).collect()
    }

    #[test]
    fn frames_meet_where_they_share_a_pixel() {
        let frame = Frame { left: 10, top: 20, right: 30, bottom: 40 };
        let moved = |across: i32, down: i32| Frame {
            left: 10 + across,
            top: 20 + down,
            right: 30 + across,
            bottom: 40 + down,
        };
        for (across, down) in [(20, 0), (-20, 20), (0, -20), (3, 3)] {
            assert!(frame.meets(&moved(across, down)) && !frame.holds(&moved(across, down)));
        }
        for (across, down) in [(21, 0), (-21, 20), (0, -21), (5, 21)] {
            assert!(!frame.meets(&moved(across, down)));
        }
        assert!(frame.holds(&frame) && frame.holds(&Frame::about((20, 30), (9, 9))));
    }

    /// Five methods under three procedures, two of which cost the same.
    #[test]
    fn procedures_are_named_once_where_methods_stand_close() {
        let base = [("sample", 159, 370), ("best-of:4", 447, 226), ("worst-of:4", 447, 512)];
        let raw = [("sample", 155, 332), ("best-of:4", 429, 190), ("worst-of:4", 429, 481)];
        let calibrated = [("sample", 156, 337), ("best-of:4", 432, 194), ("worst-of:4", 432, 486)];
        let best = [("sample", 152, 336), ("best-of:4", 417, 190), ("worst-of:4", 417, 490)];
        let worst = [("sample", 160, 342), ("best-of:4", 447, 207), ("worst-of:4", 447, 481)];
        let all = [base, raw, calibrated, best, worst].concat();
        assert_eq!(written(&all, PANEL), ["sample", "best-of:4", "worst-of:4"]);
    }

    #[test]
    fn what_stands_between_others_does_not_take_their_label() {
        let apart = [("best-of:4", 200, 200), ("worst-of:4", 200, 300), ("best-of:4", 200, 400)];
        assert_eq!(written(&apart, PANEL), ["best-of:4", "worst-of:4", "best-of:4"]);
        let far = [("sample", 100, 300), ("sample", 300, 300)];
        assert_eq!(written(&far, PANEL), ["sample", "sample"]);
    }

    #[test]
    fn other_labels_of_one_place_stand_around_it() {
        let names = ["raw", "calibrated", "ctrl-best", "ctrl-worst", "dpo", "ipo"];
        let all = names.map(|name| (name, 250, 300));
        assert_eq!(written(&all, PANEL), names);
    }

    #[test]
    fn labels_without_room_are_left_out() {
        let narrow = Frame { left: 190, top: 290, right: 260, bottom: 315 };
        let both = [("raw", 200, 300), ("calibrated", 200, 300)];
        assert_eq!(written(&both, narrow), ["raw"]);
    }
}
