package tubthumping.crac;

import java.io.IOException;
import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.time.Duration;
import java.time.Instant;
import java.time.LocalDateTime;
import java.time.format.DateTimeFormatter;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.WeakHashMap;
import jdk.jfr.FlightRecorder;
import jdk.jfr.Recording;
import jdk.jfr.RecordingState;

/**
 * Recordings that run or wait for their start: each is ended for the image, since its files cannot be in two
 * copies, and goes on afterwards under the same number and name, for whoever has it in a variable as well.
 *
 * <p>In: the recordings of this JVM. Out: what was recorded, in the file that it was to be in at the end; the
 * same recordings, each with a file that no other life has.
 *
 * <p>Invariant: a file that was there is not written to: JFR empties the one that it is given.
 *
 * <p>Not loaded in a JVM without recordings.
 *
 * <p>JVM(since 17): the package {@code jdk.jfr.internal}, with the names below; where 25 has others, both.
 */
final class FlightRecordings {
    /** As JFR writes dates in names of files. */
    private static final DateTimeFormatter DATE = DateTimeFormatter.ofPattern("yyyy_MM_dd_HH_mm_ss");

    /** Which file a recording was to end in when it was first seen: those of later lives have names made of it. */
    private static final Map<Recording, Path> FIRST_FILES = new WeakHashMap<>();

    /** How a recording was asked for, and how much of it is left. */
    private record Wish(
            Recording recording,
            long id,
            String name,
            Map<String, String> settings,
            Path file,
            List<Object> streams,
            Duration duration,
            Duration untilStart,
            Duration maxAge,
            long maxSize,
            boolean toDisk,
            boolean dumpOnExit,
            Duration flushInterval,
            Object reports) {}

    private final Object recorder;
    private final Field counter;
    private final Field insideOf;
    private final Method belongsTo;
    private final Field flushInterval;
    /** JVM(25): what is to be said at the end; not on 17 and 21. */
    private final Field reports;
    private final Repository repository = new Repository();
    private final Streams streams = new Streams();
    private final List<Wish> wishes = new ArrayList<>();
    private boolean isCopy;

    FlightRecordings() throws ReflectiveOperationException {
        FlightRecorder outside = FlightRecorder.getFlightRecorder();
        recorder = Internals.field(FlightRecorder.class, "internal").get(outside);
        counter = Internals.field(recorder.getClass(), "recordingCounter");
        insideOf = Internals.field(Recording.class, "internal");
        Class<?> inside = insideOf.getType();
        belongsTo = Internals.method(inside, "setRecording", Recording.class);
        flushInterval = Internals.field(inside, "flushInterval");
        reports = Internals.fieldIfAny(inside, "reports");
    }

    void stop() throws Exception {
        streams.find();
        for (Recording recording : FlightRecorder.getFlightRecorder().getRecordings()) {
            boolean runs = recording.getState() == RecordingState.RUNNING;
            if (!runs && recording.getState() != RecordingState.DELAYED) {
                continue;
            }
            Wish wish = wish(recording, runs);
            Path made = recording.getDestination();
            try {
                recording.setDestination(end(wish, runs));
            } catch (IOException e) {
                // It goes on as it was: nothing is done yet that would have to be undone.
                throw failed(wish, "cannot be written down", e);
            }
            streams.hold(insideOf.get(recording), wish.streams);
            wishes.add(wish);
            if (runs) {
                // With a destination this writes it there.
                recording.stop();
            }
            recording.close();
            if (!runs) {
                removeIfEmpty(made);
            }
        }
        repository.leave();
    }

    /** JFR makes the file when it is named: one that nothing was recorded in is in the way of the name. */
    private static void removeIfEmpty(Path file) {
        try {
            if (file != null && Files.isRegularFile(file) && Files.size(file) == 0) {
                Files.delete(file);
            }
        } catch (IOException e) {
            // It stays, as it does without a checkpoint, and the recording has another name.
        }
    }

    /** The file for what was recorded until now. */
    private static Path end(Wish wish, boolean runs) throws IOException {
        Path end = wish.dumpOnExit ? wish.recording.getDestination() : null;
        return runs && wish.dumpOnExit && end == null ? claim(wish.file, false) : end;
    }

    private Wish wish(Recording recording, boolean runs) throws Exception {
        Path file = recording.getDestination();
        if (file == null && recording.getDumpOnExit()) {
            // As JFR calls it; but it would give two copies with one process id the same name.
            String name = "hotspot-pid-" + ProcessHandle.current().pid() + "-id-" + recording.getId() + ".jfr";
            file = Path.of(name).toAbsolutePath();
        }
        if (file != null) {
            FIRST_FILES.putIfAbsent(recording, file);
            file = FIRST_FILES.get(recording);
        }
        Instant now = Instant.now();
        Duration duration = recording.getDuration();
        if (runs && duration != null && recording.getStopTime() != null) {
            duration = left(now, recording.getStopTime());
        }
        Object inside = insideOf.get(recording);
        return new Wish(
                recording,
                recording.getId(),
                recording.getName(),
                recording.getSettings(),
                file,
                new ArrayList<>(),
                duration,
                runs ? null : left(now, recording.getStartTime()),
                recording.getMaxAge(),
                recording.getMaxSize(),
                recording.isToDisk(),
                recording.getDumpOnExit(),
                (Duration) flushInterval.get(inside),
                reports == null ? null : reports.get(inside));
    }

    /** At least a moment, as JFR takes nothing less. */
    private static Duration left(Instant now, Instant then) {
        Duration left = Duration.between(now, then == null ? now : then);
        return left.compareTo(Duration.ofMillis(1)) < 0 ? Duration.ofMillis(1) : left;
    }

    /** Called in a copy: it has a directory of its own for what is being recorded. */
    void restored() {
        isCopy = true;
    }

    void start(Failures failures) {
        List<Wish> all = List.copyOf(wishes);
        wishes.clear();
        try {
            if (isCopy) {
                repository.renew();
            }
        } catch (Exception e) {
            failures.add(new IllegalStateException("flight recordings have no directory of their own: " + e, e));
        }
        for (Wish wish : all) {
            try {
                start(wish, failures);
            } catch (Exception e) {
                failures.add(failed(wish, "is not started again", e));
            }
        }
        streams.release();
    }

    private void start(Wish wish, Failures failures) throws Exception {
        Recording recording = again(wish);
        recording.setName(wish.name);
        recording.setToDisk(wish.toDisk);
        if (wish.toDisk) {
            recording.setMaxAge(wish.maxAge);
            recording.setMaxSize(wish.maxSize);
        }
        if (wish.file != null) {
            try {
                // The original that has recorded nothing yet ends in the file that it was to end in.
                recording.setDestination(claim(wish.file, isCopy || wish.untilStart == null));
            } catch (IOException e) {
                failures.add(failed(wish, "goes on without a file", e));
            }
        }
        recording.setDumpOnExit(wish.dumpOnExit);
        if (wish.duration != null) {
            recording.setDuration(wish.duration);
        }
        if (wish.untilStart != null) {
            recording.scheduleStart(wish.untilStart);
        } else {
            recording.start();
        }
    }

    private static Exception failed(Wish wish, String what, Exception cause) {
        return new IllegalStateException("flight recording " + wish.name + " " + what + ": " + cause, cause);
    }

    /** The recording as it was before its start, with its number: a closed one cannot be started. */
    private Recording again(Wish wish) throws Exception {
        Recording fresh = make(wish.id, wish.settings);
        Object inside = insideOf.get(fresh);
        insideOf.set(wish.recording, inside);
        Internals.call(belongsTo, inside, wish.recording);
        flushInterval.set(inside, wish.flushInterval);
        if (reports != null) {
            reports.set(inside, wish.reports);
        }
        streams.follow(wish.streams, inside);
        return wish.recording;
    }

    /** With a number of our choice, so that the next one of the application's has the one that is due. */
    private Recording make(long id, Map<String, String> settings) throws Exception {
        synchronized (recorder) {
            long last = counter.getLong(recorder);
            counter.setLong(recorder, id - 1);
            try {
                return new Recording(settings);
            } finally {
                counter.setLong(recorder, last);
            }
        }
    }

    /** Makes a file of this name, or with the date at its end where there is one or that is wished. */
    private static Path claim(Path file, boolean dated) throws IOException {
        String whole = file.getFileName().toString();
        int dot = whole.lastIndexOf('.') > 0 ? whole.lastIndexOf('.') : whole.length();
        String stem = whole.substring(0, dot);
        String date = "-" + DATE.format(LocalDateTime.now());
        for (int attempt = dated ? 1 : 0; ; attempt++) {
            String more = attempt == 0 ? "" : attempt == 1 ? date : date + "-" + attempt;
            try {
                return Files.createFile(file.resolveSibling(stem + more + whole.substring(dot)));
            } catch (FileAlreadyExistsException e) {
                // That of another life.
            }
        }
    }

    /**
     * Streams that read what is being recorded. Each ends with its recording, so that they are given another
     * before that is ended: the thread of the stream looks at it at any time.
     */
    private final class Streams {
        private Field recordingOf;
        private Object[] all = {};
        /** What they have meanwhile: one that never was started. */
        private Recording between;

        /** JVM(17, 21): the field is the superclass's or the class's own, by update; 25: its own. */
        void find() throws Exception {
            Class<?> type = Internals.type("jdk.jfr.internal.consumer.EventDirectoryStream");
            if (type == null || !Internals.isInUse(type)) {
                return;
            }
            recordingOf = Internals.fieldIfAny(type, "recording");
            if (recordingOf == null) {
                recordingOf = Internals.field(type.getSuperclass(), "recording");
            }
            Object[] found = Agent.instances(new Class<?>[] {type});
            if (found != null) {
                all = found;
            }
        }

        /** Finds those of a recording, and gives them another. */
        void hold(Object inside, List<Object> its) throws Exception {
            for (Object stream : all) {
                if (recordingOf.get(stream) == inside) {
                    its.add(stream);
                }
            }
            if (!its.isEmpty()) {
                between = between == null ? make(0, Map.of()) : between;
                follow(its, insideOf.get(between));
            }
        }

        void follow(List<Object> streams, Object inside) throws Exception {
            for (Object stream : streams) {
                recordingOf.set(stream, inside);
            }
        }

        void release() {
            all = new Object[0];
            if (between != null) {
                between.close();
                between = null;
            }
        }
    }

    /** The directory of chunks: JFR names it by process id and second, which copies may have in common. */
    private static final class Repository {
        private final Object inside;
        private final Field base;
        private final Field current;
        private final Field chunkNames;
        private final Set<Object> toBeRemoved;
        private final Method tellJvm;
        /** JVM(17): paths are wrapped; not on 25. */
        private final Constructor<?> wrapper;

        @SuppressWarnings("unchecked")
        Repository() throws ReflectiveOperationException {
            Class<?> type = Internals.type("jdk.jfr.internal.Repository");
            inside = Internals.method(type, "getRepository").invoke(null);
            base = Internals.field(type, "baseLocation");
            current = Internals.field(type, "repository");
            chunkNames = Internals.field(type, "chunkFilename");
            toBeRemoved = (Set<Object>) Internals.field(type, "cleanupDirectories").get(inside);
            Class<?> jvm = Internals.type("jdk.jfr.internal.JVM");
            tellJvm = Internals.method(jvm, "setRepositoryLocation", String.class);
            wrapper = current.getType() == Path.class ? null : current.getType().getConstructor(Path.class);
            if (wrapper != null) {
                Internals.open(current.getType().getModule(), current.getType().getPackageName());
                wrapper.setAccessible(true);
            }
        }

        /** Removes the directory if nothing is in it; JFR makes another one when it needs it. */
        void leave() throws Exception {
            Object directory = current.get(inside);
            try {
                if (directory != null) {
                    Files.deleteIfExists(Path.of(directory.toString()));
                }
            } catch (IOException e) {
                // Recordings that were stopped before have theirs in it, and copies read them there.
            }
        }

        void renew() throws Exception {
            Object parent = base.get(inside);
            if (parent == null) {
                // Nothing was ever recorded.
                return;
            }
            Path directory = make(Path.of(parent.toString()));
            synchronized (inside) {
                current.set(inside, wrapper == null ? directory : wrapper.newInstance(directory));
                chunkNames.set(inside, null);
                // What another life has left may be read by yet another.
                toBeRemoved.clear();
                toBeRemoved.add(current.get(inside));
            }
            Object jvm = Modifier.isStatic(tellJvm.getModifiers())
                    ? null
                    : Internals.method(tellJvm.getDeclaringClass(), "getJVM").invoke(null);
            Internals.call(tellJvm, jvm, directory.toString());
            System.setProperty("jdk.jfr.repository", directory.toString());
        }

        private static Path make(Path parent) throws IOException {
            var mine = PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------"));
            String name = DATE.format(LocalDateTime.now()) + "_" + ProcessHandle.current().pid();
            if (!Files.isDirectory(parent)) {
                Files.createDirectories(parent);
            }
            for (int attempt = 1; ; attempt++) {
                try {
                    return Files.createDirectory(parent.resolve(attempt == 1 ? name : name + "_" + attempt), mine);
                } catch (FileAlreadyExistsException e) {
                    // That of another life.
                }
            }
        }
    }
}
