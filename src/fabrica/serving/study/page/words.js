// What the page says, in both languages. Title, question and anchors are the study's own and stay as they are.
const ENGLISH = {
  name: "Reader study", reader: "Reader", language: "中文", progress: "{0} of {1}",
  token: "Your link, or the secret after its #", enter: "Enter",
  badToken: "This link opens no study here. Use the one that you were sent.",
  practice: "Practice: counts for nothing", loading: "Loading the image…", saving: "Storing…", stored: "Stored.",
  takenBack: "The last answer was taken back; please answer again.",
  behind: "Answered in another tab or on another device. This is where you are now.",
  lost: "Not stored yet: the server cannot be reached. Nothing is lost; it is sent again.",
  again: "Try again", failed: "This went wrong: {0}",
  undo: "Undo last answer", pause: "Pause", resume: "Continue", paused: "Paused. Time does not run.",
  done: "All done. Thank you!", doneMore: "Every answer is stored. You may close this page.",
  zoomIn: "Zoom in", zoomOut: "Zoom out", fit: "Whole image", slice: "Slice", centre: "Brightness", width: "Contrast",
  reset: "Reset window", image: "Image", imageOf: "Image {0} of {1}", tools: "View", answer: "Answer",
  noDifference: "No difference", left: "{0}", real: "Real", synthetic: "Synthetic", none: "No lesion", lesion: "Lesion",
  sure: "How sure are you?", firstSay: "First say which", marking: "Mark", removeMark: "Remove last mark",
  howClick: "Mark: click or tap the lesion; with keys: arrows, then Enter.",
  howBox: "Mark: drag a box over the lesion; with keys: arrows to a corner, Enter, arrows, Enter.",
  marks: "Marks: {0}", right: "Right is: {0}", noRight: "Your answer was noted.", next: "Next",
  keys: "Keys", help: [
    ["1–9", "answer"], ["R S · N L", "real, synthetic · none, lesion"], ["U", "undo the last answer"], ["P", "pause"],
    ["+ − F", "zoom in, out, whole image"], ["↑ ↓ PgUp PgDn", "slices"], ["← → (Shift: all)", "move"],
    ["[ ] , .", "brightness, contrast"], ["M, Del", "mark or move, remove mark"],
    ["drag · wheel", "move · slices or zoom"], ["Shift + drag", "brightness and contrast"],
  ],
};
const CHINESE = {
  name: "阅片研究", reader: "阅片者", language: "English", progress: "第 {0} / {1} 例",
  token: "您的链接,或 # 之后的密钥", enter: "进入",
  badToken: "此链接无法打开研究。请使用发给您的链接。",
  practice: "练习:不计入结果", loading: "正在加载图像…", saving: "正在保存…", stored: "已保存。",
  takenBack: "上一个答案已撤回,请重新作答。",
  behind: "已在另一标签页或另一设备上作答。现已转到当前进度。",
  lost: "尚未保存:无法连接服务器。答案不会丢失,将重新发送。",
  again: "重试", failed: "出错:{0}",
  undo: "撤回上一个答案", pause: "暂停", resume: "继续", paused: "已暂停,不计时。",
  done: "全部完成,谢谢!", doneMore: "所有答案均已保存,可以关闭本页。",
  zoomIn: "放大", zoomOut: "缩小", fit: "整幅图像", slice: "层面", centre: "亮度", width: "对比度",
  reset: "恢复窗宽窗位", image: "图像", imageOf: "图像 {0} / {1}", tools: "查看", answer: "回答",
  noDifference: "无差别", left: "{0}", real: "真实", synthetic: "合成", none: "无病灶", lesion: "有病灶",
  sure: "您有多大把握?", firstSay: "请先选择", marking: "标记", removeMark: "删除上一个标记",
  howClick: "标记:点击病灶;键盘:方向键移动,回车标记。",
  howBox: "标记:拖动框住病灶;键盘:方向键移到一角,回车,再移动,回车。",
  marks: "标记:{0}", right: "正确答案:{0}", noRight: "您的答案已记录。", next: "下一例",
  keys: "快捷键", help: [
    ["1–9", "作答"], ["R S · N L", "真实、合成 · 无、有病灶"], ["U", "撤回上一个答案"], ["P", "暂停"],
    ["+ − F", "放大、缩小、整幅"], ["↑ ↓ PgUp PgDn", "切换层面"], ["← →(Shift:各方向)", "移动"],
    ["[ ] , .", "亮度、对比度"], ["M, Del", "标记或移动、删除标记"],
    ["拖动 · 滚轮", "移动 · 层面或缩放"], ["Shift + 拖动", "亮度与对比度"],
  ],
};

export let chinese = (localStorage.getItem("language") ?? navigator.language).startsWith("zh");

export function turn() {
  chinese = !chinese;
  localStorage.setItem("language", chinese ? "zh" : "en");
}

export function say(name, ...values) {
  const found = (chinese ? CHINESE : ENGLISH)[name];
  return typeof found === "string" ? found.replace(/\{(\d)\}/g, (_, k) => values[k]) : found;
}
