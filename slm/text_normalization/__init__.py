"""Written text to spoken words: numbers, dates, money, units, abbreviations, initials, addresses."""

from slm.text_normalization.normalize import LANGUAGES as LANGUAGES
from slm.text_normalization.normalize import normalize as normalize
from slm.text_normalization.normalize import speakable as speakable
