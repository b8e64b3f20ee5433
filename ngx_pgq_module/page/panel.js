// The panel: lanes, readers, rates and waiting messages, from the status and the metrics of the server, every two seconds.

const every = 2000;
const denied = 30000;       // pause after an answer that will not change soon
const span = 300;           // seconds that a chart shows
const svg = 'http://www.w3.org/2000/svg';

const access = document.getElementById('access');
const facts = document.getElementById('facts');

let arrived = 0;            // posts since the last sample
let before = null;          // the last counters, with their time


class Chart {
    constructor(name) {
        this.name = name;
        this.samples = [];
        this.label = document.createElement('p');
        this.picture = document.createElementNS(svg, 'svg');
        this.line = document.createElementNS(svg, 'polyline');

        this.picture.setAttribute('viewBox', `0 0 ${span} 40`);
        this.picture.setAttribute('preserveAspectRatio', 'none');
        this.picture.setAttribute('role', 'img');
        this.picture.append(this.line);
        document.getElementById('charts').append(this.label, this.picture);
        this.show(false);
    }

    add(time, value) {
        this.samples = this.samples.filter((sample) => time - sample.time < span * 1000);
        this.samples.push({ time, value });

        const most = Math.max(...this.samples.map((sample) => sample.value));
        const text = `${this.name}: ${round(value)}, maximum ${round(most)}`;

        this.label.textContent = text;
        this.picture.setAttribute('aria-label', text);
        this.line.setAttribute('points', this.samples.map((sample) =>
            `${round(span - (time - sample.time) / 1000)},${round(38 - 36 * sample.value / (most || 1))}`).join(' '));
        this.show(true);
    }

    show(visible) {
        this.label.hidden = !visible;
        this.picture.toggleAttribute('hidden', !visible);
    }
}


const charts = {
    messages: new Chart('Messages a second'),
    posts: new Chart('Posts received a second'),
    waiting: new Chart('Messages waiting'),
    readers: new Chart('Readers'),
};


function round(value) {
    return Number(value.toFixed(1));
}


export function count(posts) {
    arrived += posts;
}


// Prometheus's text: a list of names, labels and values.
function readMetrics(text) {
    return [...text.matchAll(/^(\w+)(?:\{(.*)\})? (\S+)$/gm)].map(([, name, labels, value]) =>
        ({ name, labels: labels || '', value: Number(value) }));
}


function sum(metrics, name) {
    const found = metrics.filter((metric) => metric.name === name);

    return found.length ? found.reduce((total, metric) => total + metric.value, 0) : undefined;
}


// The values of a metric by one of its labels, as text.
function byLabel(metrics, name, label) {
    const totals = new Map();

    for (const metric of metrics.filter((one) => one.name === name)) {
        const key = (metric.labels.match(new RegExp(`\\b${label}="([^"]*)"`)) || [])[1];
        totals.set(key, (totals.get(key) || 0) + metric.value);
    }

    return [...totals].filter(([, value]) => value > 0).map(([key, value]) => `${value} ${key}`).join(', ');
}


function showFacts(list) {
    facts.replaceChildren(...list.filter(([, value]) => value).flatMap(([name, value]) => {
        const term = document.createElement('dt');
        const text = document.createElement('dd');
        term.textContent = name;
        text.textContent = value;
        return [term, text];
    }));
}


function showMetrics(metrics, status) {
    const time = performance.now();
    const messages = sum(metrics, 'pgq_messages_total') || 0;
    const readers = sum(metrics, 'pgq_open_readers');
    const seconds = before ? (time - before.time) / 1000 : 0;

    if (before) {
        charts.messages.add(time, Math.max(0, messages - before.messages) / seconds);
        charts.posts.add(time, arrived / seconds);
    }
    charts.waiting.add(time, sum(metrics, 'pgq_waiting_tickets') || 0);
    if (readers !== undefined) {
        charts.readers.add(time, readers);
    }

    before = { time, messages };
    arrived = 0;

    showFacts([
        ...status.pools.map((pool) => [`pool ${pool.name}`,
            pool.status + (pool.ring ? `, ring of ${pool.ring.posts} posts` : '')]),
        ['workers', String(status.workers)],
        ['lanes for POST', byLabel(metrics, 'pgq_lanes', 'state')],
        ['lanes for GET', byLabel(metrics, 'pgq_read_lanes', 'state')],
        ['readers', byLabel(metrics, 'pgq_open_readers', 'transport')],
    ]);
}


// Returns the answer, or null when it is not the page that was asked for. The status is JSON also with 503.
async function read(path, type) {
    const answer = await fetch(path, { cache: 'no-store' });
    const right = (answer.headers.get('Content-Type') || '').startsWith(type);

    if (right && (answer.ok || answer.status === 503)) {
        return answer;
    }

    access.textContent = `The ${path} of the server is not available to this page (${answer.status}).`;
    before = null;
    return null;
}


async function sample(changed) {
    const status = await read('status', 'application/json');
    const document_ = status && await status.json();

    changed(document_);

    if (document_ === null) {
        return denied;
    }

    const metrics = await read('metrics', 'text/plain');

    if (metrics === null) {
        return denied;
    }

    showMetrics(readMetrics(await metrics.text()), document_);
    access.textContent = '';

    return every;
}


// Calls changed(status) after each sample; the status is null when it cannot be read.
export async function start(changed) {
    let pause = every;

    if (!document.hidden) {
        try {
            pause = await sample(changed);
        } catch (error) {
            access.textContent = 'The server does not answer.';
            before = null;
            changed(null);
        }
    }

    setTimeout(start, pause, changed);
}
