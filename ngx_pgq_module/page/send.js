// The form that posts a message. A message keeps its Idempotency-Key until the server has answered, so that sending it again
// after an error does not queue it twice.

import { members } from './json.js';

const wait = 10;    // seconds for which the server may wait until the message is a post

const body = document.getElementById('body');
const type = document.getElementById('type');
const topic = document.getElementById('topic');
const result = document.getElementById('result');

let sending = false;
let sent = null;        // what was sent, with its key, while its outcome is unknown


function newKey() {
    return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}


function show(text, failed) {
    result.textContent = text;
    result.classList.toggle('failed', failed);
    body.setAttribute('aria-invalid', String(failed));
}


// Selects the character at this offset in bytes of the message.
function select(offset) {
    const bytes = new TextEncoder().encode(body.value).slice(0, offset);
    const at = Math.min(new TextDecoder().decode(bytes).length, body.value.length);

    body.focus();
    body.setSelectionRange(at, Math.min(at + 1, body.value.length));
}


function refused(status, problem) {
    const at = problem.offset === undefined || /at byte/.test(problem.detail) ? '' : `, at byte ${problem.offset}`;

    show(`${problem.detail || problem.title || 'The server refused the message.'}${at} (${status})`, true);

    if (problem.offset !== undefined && type.value === 'application/json') {
        select(problem.offset);
    }
}


// The answer has the message itself, whose digits JSON.parse would change: its members are read as text.
function accepted(status, answer, took) {
    const id = JSON.parse(answer.get('id'));
    const post = answer.get('post');

    show(post === undefined ? `queued as ${id}` : `queued as ${id}, posted as #${post} in ${took} ms`, false);
}


async function send() {
    const message = { text: body.value, type: type.value, topic: topic.value.trim() };
    const same = sent && ['text', 'type', 'topic'].every((name) => sent[name] === message[name]);
    const begun = performance.now();

    sent = { ...message, key: same ? sent.key : newKey() };
    show('sending …', false);

    const answer = await fetch(message.topic ? `post/${encodeURI(message.topic)}` : 'post', {
        method: 'POST',
        body: message.text,
        headers: {
            'Content-Type': message.type,
            'Idempotency-Key': `"${sent.key}"`,
            Prefer: `return=minimal, wait=${wait}`,
        },
    });
    const text = await answer.text();
    const took = Math.round(performance.now() - begun);

    if (answer.ok) {
        sent = null;
        accepted(answer.status, members(text), took);
    } else {
        const isProblem = (answer.headers.get('Content-Type') || '').startsWith('application/problem+json');
        refused(answer.status, isProblem ? JSON.parse(text) : {});
    }
}


async function submit(event) {
    event.preventDefault();

    if (sending) {
        return;
    }

    sending = true;
    try {
        await send();
    } catch (error) {
        show('The server did not answer. Sending the message again is safe.', true);
    }
    sending = false;
}


export function start() {
    document.getElementById('send').hidden = false;
    document.getElementById('message').addEventListener('submit', submit);
    body.addEventListener('keydown', (event) => {
        if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
            submit(event);
        }
    });
}
