package tubthumping.crac;

import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import jdk.jfr.FlightRecorder;
import jdk.jfr.Recording;
import jdk.jfr.RecordingState;

/**
 * Recordings that run: each is ended for the image, since its files cannot be in two copies, and
 * one like it is started afterwards. What was recorded goes to its destination, if it has one that
 * it was to be written to at the end.
 *
 * <p>Not loaded in a JVM without recordings.
 */
final class FlightRecordings {
    /** How a recording was asked for. */
    private record Wish(
            String name,
            Map<String, String> settings,
            Path destination,
            Duration duration,
            Duration maxAge,
            long maxSize,
            boolean toDisk,
            boolean dumpOnExit) {}

    private final List<Wish> wishes = new ArrayList<>();

    void stop() throws Exception {
        for (Recording recording : FlightRecorder.getFlightRecorder().getRecordings()) {
            if (recording.getState() != RecordingState.RUNNING) {
                continue;
            }
            wishes.add(
                    new Wish(
                            recording.getName(),
                            recording.getSettings(),
                            recording.getDestination(),
                            recording.getDuration(),
                            recording.getMaxAge(),
                            recording.getMaxSize(),
                            recording.isToDisk(),
                            recording.getDumpOnExit()));
            if (!recording.getDumpOnExit()) {
                recording.setDestination(null);
            }
            // With a destination this writes it there.
            recording.stop();
            recording.close();
        }
    }

    void start() throws Exception {
        List<Wish> all = List.copyOf(wishes);
        wishes.clear();
        for (Wish wish : all) {
            // Belongs to the JVM, as the one before did.
            @SuppressWarnings("resource")
            Recording recording = new Recording(wish.settings);
            recording.setName(wish.name);
            recording.setToDisk(wish.toDisk);
            if (wish.toDisk) {
                recording.setMaxAge(wish.maxAge);
                recording.setMaxSize(wish.maxSize);
            }
            recording.setDumpOnExit(wish.dumpOnExit);
            if (wish.destination != null) {
                recording.setDestination(wish.destination);
            }
            if (wish.duration != null) {
                recording.setDuration(wish.duration);
            }
            recording.start();
        }
    }
}
