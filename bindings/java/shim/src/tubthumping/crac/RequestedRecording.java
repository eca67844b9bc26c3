package tubthumping.crac;

import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.List;
import javax.management.MBeanServer;
import javax.management.ObjectName;

/**
 * A flight recording that the command line of a restore asks for, as {@code -XX:StartFlightRecording} does at a start.
 *
 * <p>In: the options of it. Out: a recording under way.
 *
 * <p>Not loaded unless there is one: it takes JMX and the flight recorder.
 *
 * <p>JVM(since 17): the options are those of the command {@code JFR.start}, parted by commas instead of blanks
 * (the {@code java} man page), which the diagnostic commands' bean has as {@code jfrStart}; same on 25.
 */
final class RequestedRecording {
    private RequestedRecording() {}

    static void start(String options) throws Exception {
        MBeanServer server = ManagementFactory.getPlatformMBeanServer();
        ObjectName commands = new ObjectName("com.sun.management:type=DiagnosticCommand");
        Object[] words = {words(options).toArray(new String[0])};
        Object told = server.invoke(commands, "jfrStart", words, new String[] {String[].class.getName()});
        if (!String.valueOf(told).contains("Started recording")) {
            throw new IllegalArgumentException("StartFlightRecording=" + options + ": " + told);
        }
    }

    /** Parts the options at commas outside of quotes; what has a blank is quoted, as the command wants it. */
    private static List<String> words(String options) {
        List<String> words = new ArrayList<>();
        StringBuilder word = new StringBuilder();
        char quote = 0;
        for (char character : (options + ",").toCharArray()) {
            if (character != ',' || quote != 0) {
                word.append(character);
            } else if (!word.isEmpty()) {
                words.add(quoted(word.toString()));
                word.setLength(0);
            }
            if (character == '"' || character == '\'') {
                quote = quote == 0 ? character : quote == character ? 0 : quote;
            }
        }
        if (quote != 0) {
            throw new IllegalArgumentException("StartFlightRecording=" + options + ": a quote has no end");
        }
        return words;
    }

    private static String quoted(String word) {
        int value = word.indexOf('=') + 1;
        boolean isPlain = word.indexOf(' ') < 0 || word.startsWith("\"", value) || word.startsWith("'", value);
        return isPlain ? word : word.substring(0, value) + '"' + word.substring(value) + '"';
    }
}
