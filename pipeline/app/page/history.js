// Undo and redo over states that are never changed in place.

export class History {
  constructor(state) {
    this.states = [state];
    this.at = 0;
    this.gesture = null;
  }

  get now() { return this.states[this.at]; }
  get canUndo() { return this.at > 0; }
  get canRedo() { return this.at < this.states.length - 1; }

  /** The next state. Those of one gesture, such as a drag, count as one. */
  push(state, gesture = null) {
    const same = gesture !== null && gesture === this.gesture;
    this.gesture = gesture;
    this.states.length = this.at + 1;
    if (same) this.states[this.at] = state;
    else this.at = this.states.push(state) - 1;
  }

  undo() { this.at -= this.canUndo ? 1 : 0; this.gesture = null; }
  redo() { this.at += this.canRedo ? 1 : 0; this.gesture = null; }
}
