import { jobsOver, type Place } from './reading.js'

addEventListener('message', async ({ data }: MessageEvent<{ place: Place; files: readonly File[] }>) => {
  postMessage(await jobsOver(() => data.files).disk(data.place))
})
