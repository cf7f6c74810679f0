import { chosenFiles } from './metadata.js'
import { type Disk, type Failure, jobsOver, type Place } from './reading.js'

const jobs = {
  ...jobsOver(chosenFiles),
  /** The same in a worker, which is where a page reads much. */
  diskInWorker: (place: Place) =>
    new Promise<Disk | Failure>((resolve, reject) => {
      const worker = new Worker('/worker.js', { type: 'module' })
      worker.onerror = event => reject(new Error(event.message))
      worker.onmessage = ({ data }) => {
        worker.terminate()
        resolve(data)
      }
      worker.postMessage({ place, files: chosenFiles() })
    }),
}

export type PageJobs = typeof jobs

Object.assign(globalThis, { jobs })
