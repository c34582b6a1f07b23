//! Words for prompts. They are short and common, so that most vocabularies have a token for each.

use rand::Rng;
use rand::rngs::StdRng;

const WORDS: [&str; 128] = [
    "about", "after", "again", "air", "also", "animal", "answer", "back", "ball", "bank", "before", "begin", "best",
    "bird", "black", "blue", "boat", "body", "book", "bread", "bring", "build", "call", "car", "carry", "change",
    "child", "city", "clear", "close", "cold", "color", "come", "cook", "country", "cut", "dark", "day", "deep",
    "door", "draw", "drive", "dry", "early", "earth", "east", "end", "eye", "face", "fall", "family", "farm", "fast",
    "field", "fire", "fish", "five", "floor", "fly", "food", "form", "friend", "game", "garden", "give", "glass",
    "gold", "green", "group", "grow", "hand", "hard", "head", "heart", "high", "hill", "home", "horse", "house", "ice",
    "iron", "island", "king", "land", "large", "late", "leaf", "learn", "light", "line", "long", "map", "market",
    "milk", "mind", "moon", "morning", "mountain", "music", "name", "night", "north", "ocean", "open", "paper",
    "plant", "play", "point", "power", "rain", "river", "road", "rock", "room", "salt", "sea", "ship", "snow", "song",
    "star", "stone", "story", "summer", "table", "tree", "water", "wind", "winter",
];

/// Draws `count` words, with spaces between them.
pub(super) fn text(count: u32, random: &mut StdRng) -> String {
    let words: Vec<_> = (0..count).map(|_| WORDS[random.random_range(0..WORDS.len())]).collect();
    words.join(" ")
}
