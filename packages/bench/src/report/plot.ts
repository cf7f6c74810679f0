import * as Plot from '@observablehq/plot'
import { parseHTML } from 'linkedom'
import { processBenchmarks } from '../process/benchmarks.js'
import { ratio } from './format.js'
import { enginePeers, groupBy, type Spread, spread } from './ratios.js'
import type { Results } from './results.js'

interface Bar extends Spread {
  work: string
  peer: string
  label: string
  kind: string
}

const WIDTH = 860
const MARGIN_LEFT = 320
/** Beyond, a bar ends at the border; its figure still stands there. */
const DOMAIN: [number, number] = [0.1, 3000]

/** Mid tones, to be told apart on white and on black, and without colours by their place. */
const colours = {
  domain: ['C', 'library', 'plain', 'qemu'],
  range: ['#d9822b', '#3b82d0', '#8a94a6', '#1c9a77'],
}

/**
 * The bars of all ratios as one SVG. Text has the colour of the page's text: in a dark page's `<img>` the media
 * query makes it light.
 */
export function renderPlot(results: Results): string {
  const { document } = parseHTML('<!doctype html><html><body></body></html>')
  const panels = [
    panel('The command, against qemu-img', commandBars(results), document as unknown as Document),
    panel(
      'The engine, against native C and JavaScript libraries (2 MiB; line: all sizes and patterns)',
      engineBars(results),
      document as unknown as Document,
    ),
  ].filter(each => each !== undefined)
  let top = 56
  const placed = panels.map(({ svg, height }) => {
    const at = top
    top += height + 16
    return svg.replace('<svg ', `<svg y="${at}" `)
  })
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${top}" viewBox="0 0 ${WIDTH} ${top}" font-family="system-ui, sans-serif">
<style>svg{color:#1f2328}@media(prefers-color-scheme:dark){svg{color:#e6edf3}}</style>
<text x="12" y="26" font-size="17" font-weight="600" fill="currentColor">How many times faster tidemark is</text>
<text x="12" y="45" font-size="12" fill="currentColor" fill-opacity="0.75">peer's time ÷ tidemark's, in the same run, on a log axis; right of 1× tidemark is the faster</text>
${placed.join('\n')}
</svg>
`
}

function commandBars({ process }: Results): Bar[] {
  return process.flatMap(({ benchmark, tidemark, peer }) => {
    if (!peer?.name.startsWith('qemu-img')) return []
    const median = peer.ms.median / tidemark.ms.median
    const title = processBenchmarks.find(({ name }) => name === benchmark)?.title ?? benchmark
    return {
      work: title.replace(/ \(.*\)/, ''),
      peer: '',
      median,
      min: median,
      max: median,
      label: ratio(median),
      kind: 'qemu',
    }
  })
}

function engineBars({ engine }: Results): Bar[] {
  return [...groupBy(engine, ({ benchmark }) => benchmark)].flatMap(([work, cases]) =>
    enginePeers.flatMap(peer => {
      const typical = spread(
        cases.filter(({ size }) => size === '2 MiB'),
        peer,
      )
      const all = spread(cases, peer)
      if (!typical || !all) return []
      const { median } = typical
      const kind = peer.startsWith('C,') ? 'C' : peer === 'plain JS' ? 'plain' : 'library'
      return { work, peer, ...all, median, label: ratio(median), kind }
    }),
  )
}

function panel(title: string, bars: Bar[], document: Document): { svg: string; height: number } | undefined {
  if (bars.length === 0) return undefined
  const grouped = bars.some(({ peer }) => peer !== '')
  const works = [...new Set(bars.map(({ work }) => work))]
  // One row for each bar, in order; facets would leave room for peers that an operation does not have.
  const rows: (Bar & { row: string })[] = []
  const order: string[] = []
  for (const work of works) {
    if (grouped && order.length > 0) order.push(`gap ${work}`)
    for (const bar of bars.filter(each => each.work === work)) {
      const row = `${work}/${bar.peer}`
      order.push(row)
      rows.push({ ...bar, row })
    }
  }
  const rowHeight = grouped ? 15 : 20
  const height = order.length * rowHeight + 62
  const clamp = (value: number) => Math.min(DOMAIN[1], Math.max(DOMAIN[0], value))
  const heads = works.map(work => rows.find(row => row.work === work)!)
  const svg = Plot.plot({
    document,
    width: WIDTH,
    height,
    marginLeft: MARGIN_LEFT,
    marginRight: 60,
    marginTop: 30,
    marginBottom: 32,
    style: { background: 'none', color: 'currentColor', fontFamily: 'inherit', fontSize: '12px' },
    x: {
      type: 'log',
      domain: DOMAIN,
      ticks: [0.1, 1, 10, 100, 1000],
      tickFormat: (value: number) => `${value}×`,
      label: null,
    },
    y: { domain: order, axis: null, padding: 0.18 },
    color: colours,
    marks: [
      Plot.gridX({ ticks: [0.1, 10, 100, 1000], strokeOpacity: 0.15 }),
      Plot.barX(rows, { x1: 1, x2: row => clamp(row.median), y: 'row', fill: 'kind' }),
      ...(grouped
        ? [
            Plot.ruleY(rows, {
              x1: row => clamp(row.min),
              x2: row => clamp(row.max),
              y: 'row',
              stroke: 'currentColor',
              strokeOpacity: 0.55,
              strokeWidth: 1,
            }),
          ]
        : []),
      Plot.ruleX([1], { stroke: 'currentColor', strokeWidth: 1.5 }),
      Plot.text(rows, {
        x: row => clamp(Math.max(1, row.median, grouped ? row.max : 0)),
        y: 'row',
        text: 'label',
        textAnchor: 'start',
        dx: 6,
        fill: 'currentColor',
      }),
      Plot.text(rows, {
        frameAnchor: 'left',
        y: 'row',
        text: row => (grouped ? row.peer : row.work),
        textAnchor: 'end',
        dx: -10,
        fill: 'currentColor',
      }),
      ...(grouped
        ? [
            Plot.text(heads, {
              frameAnchor: 'left',
              y: 'row',
              text: 'work',
              textAnchor: 'start',
              dx: -MARGIN_LEFT + 12,
              fill: 'currentColor',
              fontWeight: 600,
            }),
          ]
        : []),
      Plot.text([title], {
        frameAnchor: 'top-left',
        text: (d: string) => d,
        textAnchor: 'start',
        dx: -MARGIN_LEFT + 12,
        dy: -24,
        fill: 'currentColor',
        fontWeight: 600,
        fontSize: 13,
      }),
    ],
  })
  return { svg: svg.outerHTML, height }
}
