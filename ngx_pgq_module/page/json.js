// Reads JSON text without converting it: numbers keep their digits, and strings their escapes. The text is valid JSON, as
// the server sends no other.

const space = ' \t\r\n';
const marks = '{}[],:"';
const deepest = 40;     // levels that are indented


// The index after the string that begins at this index.
function stringEnd(text, at) {
    for (let end = text.indexOf('"', at + 1); end >= 0; end = text.indexOf('"', end + 1)) {
        let before = end - 1;

        while (text[before] === '\\') {
            before--;
        }
        if ((end - before) % 2 === 1) {
            return end + 1;
        }
    }

    return text.length;
}


// The tokens of a text, each as its first index and the index after it.
function* tokens(text) {
    let at = 0;

    while (at < text.length) {
        let end = at + 1;

        if (space.includes(text[at])) {
            at = end;
            continue;
        }

        if (text[at] === '"') {
            end = stringEnd(text, at);
        } else if (!marks.includes(text[at])) {
            while (end < text.length && !space.includes(text[end]) && !marks.includes(text[end])) {
                end++;
            }
        }

        yield [at, end];
        at = end;
    }
}


// The members of an object: a Map from each name to the text of its value.
export function members(text) {
    const found = new Map();
    let depth = 0;
    let name = null;
    let from = -1;

    for (const [at, end] of tokens(text)) {
        const mark = text[at];

        if (mark === '{' || mark === '[') {
            depth++;
        } else if (mark === '}' || mark === ']') {
            depth--;
        }

        if (depth === 1 && name === null && mark === '"') {
            name = JSON.parse(text.slice(at, end));
        } else if (depth === 1 && from < 0 && mark === ':') {
            from = end;
        } else if (name !== null && (depth === 0 || depth === 1 && mark === ',')) {
            found.set(name, text.slice(from, at).trim());
            name = null;
            from = -1;
        }
    }

    return found;
}


// The text of a value on one line, at most so many characters of it.
export function oneLine(text, most) {
    let line = '';

    for (const [at, end] of tokens(text)) {
        line += text.slice(at, Math.min(end, at + most));
        line += text[at] === ',' || text[at] === ':' ? ' ' : '';

        if (line.length > most) {
            return line.slice(0, most).replace(/[\ud800-\udbff]$/, '') + ' …';
        }
    }

    return line;
}


// The text of a value on several lines, indented.
export function indented(text) {
    let depth = 0;
    let opened = false;
    const parts = [];
    const newLine = () => parts.push('\n', '  '.repeat(Math.min(depth, deepest)));

    for (const [at, end] of tokens(text)) {
        const mark = text[at];
        const closes = mark === '}' || mark === ']';

        depth -= closes ? 1 : 0;
        if (closes ? !opened : opened) {
            newLine();
        }

        opened = mark === '{' || mark === '[';
        depth += opened ? 1 : 0;
        parts.push(text.slice(at, end));

        if (mark === ',') {
            newLine();
        } else if (mark === ':') {
            parts.push(' ');
        }
    }

    return parts.join('');
}
