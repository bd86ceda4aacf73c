const samples = document.getElementById("samples");
const strip = samples ? [...samples.querySelectorAll(".strip img")] : [];
if (strip.length > 1) {
  const large = new Image();
  samples.querySelector(".viewer").prepend(large);
  const slider = samples.querySelector("input");
  const told = samples.querySelector("output");
  const show = () => {
    const chosen = strip[slider.value];
    large.src = chosen.src;
    large.alt = chosen.alt;
    large.className = "large " + chosen.className;
    told.value = chosen.alt;
    strip.forEach((image) => image.classList.toggle("chosen", image === chosen));
  };
  slider.addEventListener("input", show);
  strip.forEach((image, index) => image.addEventListener("click", () => {
    slider.value = index;
    show();
  }));
  samples.classList.add("live");
  show();
}
