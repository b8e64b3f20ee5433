// The list of posts: a stream of new posts, shown newest first. A post is shown once: the page remembers the last id, goes on
// after it when the connection was lost, and ignores ids that it has seen. Posts are shown as text, never as HTML.

import { indented, members, oneLine } from './json.js';
import * as panel from './panel.js';
import * as send from './send.js';

const most = 500;               // posts in the list
const mostBytes = 16 << 20;     // characters of them
const first = 100;              // posts that a new page shows
const lineLength = 300;
const old = 5000;               // age in ms of a post that is not from now: the page is catching up

const byId = (id) => document.getElementById(id);
const [list, state, detail, summary, topics, text, pause] =
    ['posts', 'state', 'detail', 'summary', 'topics', 'text', 'pause'].map(byId);

let source = null;              // the EventSource
let retry = 0;                  // timer of the next connection, when the browser makes none
let failures = 0;
let retryAt = 0;
let refusal = '';               // why the server refuses the stream
let last = null;                // id of the newest post that arrived, a BigInt
let resume = null;              // id after which a page that is loaded again begins
let arrived = [];               // posts and gaps that arrived since the last frame
let paused = false;
let held = [];                  // those that arrived while the list is paused
let heldPosts = 0;
let bytes = 0;                  // characters of the posts in the list
let shown = 0;                  // posts shown since the last summary
let catchingUpUntil = 0;
let offset = 0;                 // ms by which the server's clock is ahead
let status = null;


// ---- the stream

const key = () => `pgq ${location.pathname} ${topics.value.trim()}`;


// Storage may be denied: then a page that is loaded again shows the newest posts.
function remembered() {
    try {
        return sessionStorage.getItem(key());
    } catch (error) {
        return null;
    }
}


// Remembers the id before the oldest of the first posts in the list, so that a page that is loaded again shows them.
function remember() {
    const oldest = [...list.children].slice(0, first).filter((row) => row.dataset.id).pop();

    try {
        if (oldest) {
            sessionStorage.setItem(key(), String(BigInt(oldest.dataset.id) - 1n));
        }
    } catch (error) {
        // not remembered
    }
}


function streamUrl(more) {
    const query = new URLSearchParams(more);

    if (topics.value.trim()) {
        query.set('topic', topics.value.trim());
    }

    return `stream?${query}`;
}


function connect() {
    const begin = last ?? resume;

    clearTimeout(retry);
    source?.close();
    source = new EventSource(streamUrl(begin === null ? { newest: first } : { last_event_id: begin }));
    source.onopen = () => {
        failures = 0;
        refusal = '';
        showState();
    };
    source.onmessage = (event) => receive(event.data);
    source.addEventListener('reset', (event) => receiveReset(event.data));
    source.onerror = lost;
    showState();
}


// The browser connects again by itself, except after a refusal.
async function lost() {
    const refused = source;

    showState();
    if (refused.readyState !== EventSource.CLOSED) {
        return;
    }

    let seconds = Math.min(30, 2 ** failures++);

    refusal = '';
    try {
        const answer = await fetch(streamUrl({ newest: 0, wait: 1 }));
        if (!answer.ok) {
            const problem = await answer.json().catch(() => ({}));
            refusal = `${problem.detail || answer.statusText} (${answer.status})`;
            seconds = Number(answer.headers.get('Retry-After')) || (answer.status < 500 ? 30 : seconds);
        }
    } catch (error) {
        // the server cannot be reached
    }

    if (source === refused) {
        seconds *= 0.75 + Math.random() / 2;
        retryAt = Date.now() + 1000 * seconds;
        retry = setTimeout(connect, 1000 * seconds);
        showState();
    }
}


function receive(data) {
    const post = members(data);
    const id = BigInt(post.get('id'));

    if (last !== null && id <= last) {
        return;
    }

    last = id;
    arrive({
        id: String(id),
        at: JSON.parse(post.get('at') ?? 'null'),
        topic: JSON.parse(post.get('topic') ?? '""'),
        data: post.get('data'),
    });
    panel.count(1);
}


// The server could not go on after the last id: posts between may be missing.
function receiveReset(data) {
    const reset = members(data);

    last = BigInt(reset.get('newest'));
    arrive({ gap: JSON.parse(reset.get('reason')), id: String(last) });
}


// Forgets what was shown, and begins with the newest posts.
function begin(from) {
    last = null;
    resume = from;
    arrived = [];
    held = [];
    heldPosts = 0;
    bytes = 0;
    list.replaceChildren();
    showHeld();
    connect();
}


// ---- the list

// A hidden page has no frames: it keeps only what the list has place for.
function arrive(item) {
    if (arrived.length === 0) {
        requestAnimationFrame(render);
    }
    arrived.push(item);
    if (arrived.length > 2 * most) {
        arrived = arrived.slice(-most);
    }
}


function render() {
    const items = arrived;

    arrived = [];
    noteAge(items);

    if (paused) {
        heldPosts += items.filter((item) => !item.gap).length;
        held = [...held, ...items].slice(-most);
        showHeld();
    } else {
        add(items);
    }
}


function add(items) {
    const rows = items.slice(-most).map((item) => item.gap ? gapRow(item) : postRow(item));

    list.prepend(...rows.reverse());
    trim();
    remember();
    shown += items.filter((item) => !item.gap).length;
}


function trim() {
    while (list.children.length > most || bytes > mostBytes && list.children.length > 1) {
        const row = list.lastElementChild;

        if (row.contains(document.activeElement)) {
            list.focus({ preventScroll: true });
        }
        bytes -= row.post ? row.post.data.length : 0;
        row.remove();
    }
}


function element(name, className, content) {
    const made = document.createElement(name);

    made.className = className;
    made.textContent = content;

    return made;
}


function gapRow(item) {
    const row = element('li', 'gap', `gap: posts before #${item.id} may be missing (${item.gap})`);

    row.dataset.gap = item.gap;

    return row;
}


function postRow(post) {
    const row = element('li', 'post', '');
    const line = element('button', 'line', '');
    const time = element('time', 'age', '');

    line.type = 'button';
    line.setAttribute('aria-expanded', 'false');
    line.append(element('span', 'id', `#${post.id}`), ' ', time, ' ', element('span', 'topic', post.topic), ' ',
        element('span', 'data', oneLine(post.data, lineLength)));

    if (post.at) {
        time.dateTime = post.at;
        time.title = post.at;
    }

    row.append(line);
    row.dataset.id = post.id;
    row.post = post;
    row.hidden = !matches(post);
    bytes += post.data.length;
    showAge(time);

    return row;
}


function unfold(row) {
    const line = row.querySelector('.line');
    const open = line.getAttribute('aria-expanded') !== 'true';

    line.setAttribute('aria-expanded', String(open));
    if (open) {
        const whole = element('pre', 'whole', indented(row.post.data));
        whole.tabIndex = 0;
        whole.setAttribute('role', 'region');
        whole.setAttribute('aria-label', `Post #${row.post.id}`);
        row.append(whole);
    } else {
        row.querySelector('.whole').remove();
    }
}


function matches(post) {
    const wanted = text.value.toLowerCase();

    return !wanted || post.topic.toLowerCase().includes(wanted) || post.data.toLowerCase().includes(wanted);
}


function togglePause() {
    paused = !paused;

    if (!paused) {
        add(held);
        held = [];
        heldPosts = 0;
    }
    showHeld();
}


function showHeld() {
    pause.textContent = paused ? `Follow (${heldPosts} new)` : 'Pause';
}


// ---- times and the state

const now = () => Date.now() + offset;


function duration(seconds) {
    return seconds < 60 ? `${seconds} s` : seconds < 3600 ? `${Math.floor(seconds / 60)} min`
        : seconds < 86400 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86400)} d`;
}


function showAge(time) {
    const age = time.dateTime ? duration(Math.max(0, Math.floor((now() - Date.parse(time.dateTime)) / 1000))) : '–';

    if (time.textContent !== age) {
        time.textContent = age;
    }
}


function noteAge(items) {
    const at = Date.parse(items.at(-1)?.at);

    catchingUpUntil = now() - at > old ? Date.now() + 1000 : 0;
    showState();
}


function currentState() {
    const away = status?.pools.find((pool) => pool.status === 'unavailable');

    if (source.readyState === EventSource.CLOSED) {
        const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
        return ['reconnecting', `in ${seconds} s${refusal ? `: ${refusal}` : ''}`];
    }
    if (source.readyState === EventSource.CONNECTING) {
        return [last === null ? 'connecting' : 'reconnecting', ''];
    }
    if (away) {
        return ['database away', away.ring ? `posts are ${duration(Math.round(away.ring.age))} old` : ''];
    }
    if (Date.now() < catchingUpUntil) {
        return ['catching up', ''];
    }

    return ['live', ''];
}


function showState() {
    const [name, more] = currentState();

    if (state.textContent !== name) {
        state.textContent = name;
        state.dataset.state = name;
    }
    detail.textContent = more;
}


// The clock of the server, by which ages are computed, from the header field Date.
async function readClock() {
    const answer = await fetch('page.js', { method: 'HEAD', cache: 'no-store' });
    const date = Date.parse(answer.headers.get('Date'));

    offset = Math.abs(date - Date.now()) > 2000 ? date - Date.now() : 0;
}


function everySecond() {
    document.querySelectorAll('.age').forEach(showAge);
    showState();
}


// Screen readers are told of new posts at intervals, and not of each.
function summarize() {
    if (shown > 0) {
        summary.textContent = `${shown} new ${shown === 1 ? 'post' : 'posts'}, the newest is #${last}`;
        shown = 0;
    }
}


// ---- the controls

function isControl(target) {
    return target.closest('input, textarea, select, button, pre') !== null;
}


function onKey(event) {
    if (event.key === ' ' && !isControl(event.target)) {
        event.preventDefault();
        pause.click();
    }
}


// The arrow keys move between posts.
function onListKey(event) {
    const row = event.target.closest('.line')?.parentElement;
    const step = { ArrowDown: 'nextElementSibling', ArrowUp: 'previousElementSibling' }[event.key];

    if (!row || !step) {
        return;
    }

    event.preventDefault();
    for (let next = row[step]; next; next = next[step]) {
        if (!next.hidden && next.post) {
            next.querySelector('.line').focus();
            return;
        }
    }
}


function filterText() {
    for (const row of list.children) {
        row.hidden = row.post !== undefined && !matches(row.post);
    }
}


function start() {
    byId('filter').addEventListener('submit', (event) => event.preventDefault());
    byId('newest').addEventListener('click', () => begin(null));
    topics.addEventListener('change', () => begin(remembered()));
    text.addEventListener('input', filterText);
    pause.addEventListener('click', togglePause);
    list.addEventListener('keydown', onListKey);
    list.addEventListener('click', (event) => {
        const line = event.target.closest('.line');
        if (line) {
            unfold(line.parentElement);
        }
    });
    document.addEventListener('keydown', onKey);

    if (new URLSearchParams(location.search).get('view') !== '1') {
        send.start();
    }

    begin(remembered());
    setInterval(everySecond, 1000);
    setInterval(summarize, 5000);
    readClock().catch(() => {});
    panel.start((changed) => {
        status = changed;
        showState();
    });
}


start();
