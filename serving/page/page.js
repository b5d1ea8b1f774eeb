// What the page does in the browser without asking the server.
window.lyricsPage = (() => {
  const LIMIT = 20e6; // bytes, as MAX_FILE_BYTES in page_picture.py
  const TYPES = 'image/png,image/jpeg,image/webp,image/gif,image/bmp';
  const LAYERS = ['Boxes', 'Masks', 'Labels', 'Scores'];

  const picker = () => document.querySelector('#ly-actions input[type=file]');

  const tell = (text) => {
    const region = document.getElementById('ly-live');
    if (region) region.textContent = text;
  };

  const refuse = (text) => {
    tell(text);
    let note = document.getElementById('ly-refused');
    if (!note) {
      note = Object.assign(document.createElement('div'), { id: 'ly-refused' });
      note.setAttribute('role', 'alert');
      document.body.append(note);
    }
    note.textContent = text;
    clearTimeout(note.timer);
    note.timer = setTimeout(() => note.remove(), 12000);
  };

  const isTooLarge = (file) => {
    if (file.size <= LIMIT) return false;
    refuse(`This file has ${(file.size / 1e6).toFixed(1)} MB, and the limit is ${LIMIT / 1e6} MB.`);
    return true;
  };

  const give = (files) => {
    const file = [...files].find((one) => one.type.startsWith('image/')) || files[0];
    const input = picker();
    if (!file || !input || isTooLarge(file)) return;
    const carrier = new DataTransfer();
    carrier.items.add(file);
    input.files = carrier.files;
    input.dispatchEvent(new Event('change', { bubbles: true }));
  };

  // before Gradio's own listener, so that nothing is sent that would be refused
  document.addEventListener('change', (event) => {
    const input = event.target;
    if (input !== picker() || !input.files.length) return;
    if (isTooLarge(input.files[0])) event.stopImmediatePropagation();
    setTimeout(() => { input.value = ''; }); // so that the same file can be chosen again
  }, true);

  document.addEventListener('click', (event) => {
    if (!event.target.closest('[data-choose]')) return;
    const input = picker();
    input.accept = TYPES;
    input.click();
  });

  document.addEventListener('paste', (event) => {
    if (event.clipboardData && event.clipboardData.files.length) {
      event.preventDefault();
      give(event.clipboardData.files);
    }
  });

  const holdsFiles = (event) => event.dataTransfer && [...event.dataTransfer.types].includes('Files');
  document.addEventListener('dragover', (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    document.body.classList.add('ly-dragging');
  });
  document.addEventListener('dragleave', (event) => {
    if (!event.relatedTarget) document.body.classList.remove('ly-dragging');
  });
  document.addEventListener('drop', (event) => {
    document.body.classList.remove('ly-dragging');
    if (!holdsFiles(event)) return;
    event.preventDefault();
    give(event.dataTransfer.files);
  });

  // a box in the text and the same box in the image light up together
  document.addEventListener('mouseover', (event) => {
    document.querySelectorAll('.ly-lit').forEach((one) => one.classList.remove('ly-lit'));
    const plate = event.target.closest('.ly-current .ly-box');
    if (plate) document.querySelectorAll(`.ly-found[data-found="${plate.dataset.found}"]`).forEach((one) => one.classList.add('ly-lit'));
  });

  // the last turn of a conversation stays in sight
  const follow = () => {
    const turns = document.querySelector('.ly-turns');
    if (turns) turns.scrollTop = turns.scrollHeight;
  };

  return {
    tell,
    follow,
    showLayers(shown) {
      LAYERS.forEach((name) => document.body.classList.toggle(`ly-no-${name.toLowerCase()}`, !shown.includes(name)));
    },
    focusQuestion() {
      if (window.matchMedia('(pointer: fine)').matches) document.querySelector('#ly-question textarea')?.focus({ preventScroll: true });
    },
    download(text) {
      const end = text.indexOf('\n');
      if (end < 0) return;
      const link = document.createElement('a');
      link.href = URL.createObjectURL(new Blob([text.slice(end + 1)], { type: 'application/json' }));
      link.download = text.slice(0, end);
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    },
  };
})();
